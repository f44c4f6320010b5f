"""What asyncssh and servers say, as StorageFailed.

SFTP version 3 has few words: OpenSSH says "Failure" for whatever is not a missing file or a permission
(sftp-server.c, errno_to_portable), so those who ask have to look what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncssh

from workers.storage.trees.base import StorageFailed, Trouble, shown

#: The first that fits; what each subclass is in the words of a sentence.
_TROUBLES: Final[tuple[tuple[type[asyncssh.SFTPError], Trouble, str], ...]] = (
    (asyncssh.SFTPNoSuchFile, Trouble.MISSING, "there is no such file or folder"),
    (asyncssh.SFTPNoSuchPath, Trouble.MISSING, "there is no such file or folder"),
    (asyncssh.SFTPPermissionDenied, Trouble.DENIED, "permission denied"),
    (asyncssh.SFTPWriteProtect, Trouble.DENIED, "it can only be read"),
    (asyncssh.SFTPCannotDelete, Trouble.DENIED, "it cannot be removed"),
    (asyncssh.SFTPNoSpaceOnFilesystem, Trouble.FULL, "the disk is full"),
    (asyncssh.SFTPQuotaExceeded, Trouble.FULL, "the quota is used up"),
    (asyncssh.SFTPFileAlreadyExists, Trouble.EXISTS, "it is there already"),
    (asyncssh.SFTPDirNotEmpty, Trouble.NOT_EMPTY, "the folder is not empty"),
    (asyncssh.SFTPNotADirectory, Trouble.NOT_FOLDER, "it is not a folder"),
    (asyncssh.SFTPFileIsADirectory, Trouble.IS_FOLDER, "it is a folder"),
    (asyncssh.SFTPInvalidFilename, Trouble.NAME, "the server cannot hold this name"),
    # OpenSSH's answer to a name that is too long.
    (asyncssh.SFTPBadMessage, Trouble.NAME, "the server does not take this name"),
    (asyncssh.SFTPOpUnsupported, Trouble.OTHER, "the server does not offer this"),
    (asyncssh.SFTPConnectionLost, Trouble.AWAY, "the connection was lost"),
    (asyncssh.SFTPNoConnection, Trouble.AWAY, "the connection was lost"),
)
#: Longest part of a server's own words that is passed on.
_MOST_WORDS: Final = 200


class Lost(StorageFailed):
    """A connection is no more; which path that was about is added by ``told``."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Trouble.AWAY)


@contextmanager
def told(path: bytes) -> Iterator[None]:
    """Around requests about ``path``: what they raise comes out as StorageFailed that names it."""
    try:
        yield
    except Lost as lost:
        raise StorageFailed(f"{shown(path)}: {lost.message}", lost.trouble) from lost
    except StorageFailed:
        raise
    except (asyncssh.Error, OSError, EOFError) as error:
        raise translated(error, path) from error


def translated(error: BaseException, path: bytes) -> StorageFailed:
    """The failure of a request about ``path``."""
    if isinstance(error, StorageFailed):
        return error
    for kind, trouble, words in _TROUBLES:
        if isinstance(error, kind):
            return StorageFailed(f"{shown(path)}: {words}{_reason(error)}", trouble)
    if isinstance(error, asyncssh.SFTPError):
        return StorageFailed(f"{shown(path)}: the server refuses it{_reason(error)}", Trouble.OTHER)
    return StorageFailed(f"{shown(path)}: the connection was lost ({_printable(str(error))})", Trouble.AWAY)


def _reason(error: asyncssh.SFTPError) -> str:
    """What the server said; it is not ours, so only a little of it."""
    text = _printable(error.reason)
    return f" ({text})" if text else ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MOST_WORDS])
