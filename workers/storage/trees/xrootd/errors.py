"""What an answer of an XRootD server, or of its client, means.

Numbers: https://xrootd.web.cern.ch/doc/dev56/XRdv520.htm "Error codes" (3000 and on), XrdCl/XrdClStatus.hh
(below 1000).
"""

from __future__ import annotations

from typing import Any, Final

from workers.storage.base import StorageFailed, Trouble

_SERVER: Final = 400
_BY_ERRNO: Final = {
    3002: Trouble.NAME,  # argument too long
    3006: Trouble.OTHER,
    3009: Trouble.FULL,
    3010: Trouble.DENIED,
    3011: Trouble.MISSING,
    3014: Trouble.AWAY,  # no server has it just now
    3016: Trouble.IS_FOLDER,
    3018: Trouble.EXISTS,
    3019: Trouble.DAMAGED,
    3020: Trouble.AWAY,
    3021: Trouble.FULL,  # over quota
    3024: Trouble.AWAY,  # overloaded
    3025: Trouble.DENIED,  # read-only
    3029: Trouble.AWAY,
    3030: Trouble.DENIED,
    3034: Trouble.AWAY,
    3035: Trouble.AWAY,
}
#: 3005 is any error of the file system, 3007 one of its disk: only the words tell which.
_BY_WORDS: Final = {
    "directory not empty": Trouble.NOT_EMPTY,
    "not a directory": Trouble.NOT_FOLDER,
    "is a directory": Trouble.IS_FOLDER,
    "file name too long": Trouble.NAME,
    "filename too long": Trouble.NAME,
    "no space left on device": Trouble.FULL,
    "disk quota exceeded": Trouble.FULL,
    "quota exceeded": Trouble.FULL,
    "too many levels of symbolic links": Trouble.MISSING,
    "file exists": Trouble.EXISTS,
}
_LOGIN: Final = (203, 204)  # login, authentication
#: Asked for what the server cannot do; among it a checksum of an unknown kind.
UNSUPPORTED: Final = (3012, 3013)


def failed(server: str, what: str, status: Any) -> StorageFailed:
    """ "XRootD at host:1094: /a/b: no such file or directory"."""
    words = str(status.message).strip().removeprefix("[FATAL]").removeprefix("[ERROR]").strip()
    if status.code == _SERVER:
        words = words.rpartition("; ")[2] if "; " in words else words.rpartition("] ")[2]
    words = "".join(char for char in words if char.isprintable()).rstrip(".")
    return StorageFailed(f"{server}: {what}: {words[:200] or 'it failed'}", trouble_of(status, words.lower()))


def trouble_of(status: Any, words: str) -> Trouble:
    """The kind of trouble; ``words`` are the server's, in small letters."""
    if status.code == _SERVER:
        by_words = _BY_WORDS.get(words)
        return by_words or _BY_ERRNO.get(status.errno, Trouble.OTHER)
    if status.code in _LOGIN:
        return Trouble.DENIED
    # Sockets (101 and on), the client's own waiting (206 and on).
    return Trouble.AWAY if 101 <= status.code <= 110 or 200 < status.code < 210 else Trouble.OTHER
