"""What a server tells about a file in MLST and MLSD (RFC 3659, section 7), and names in URLs. Pure."""

from __future__ import annotations

import calendar
import itertools
import re
import stat as modes
import time
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from workers.storage.trees.base import Entry, StorageFailed, Trouble, shown

_LINE: Final = re.compile(rb"((?:[^=; ]+=[^;]*;)+) (.*)", re.DOTALL)
_TIME: Final = re.compile(r"(\d{14})(?:\.(\d{1,9}))?")
#: The protocol's lines end there, or the servers' terminals eat it.
_NEVER: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_KINDS: Final = {"dir": modes.S_IFDIR, "cdir": modes.S_IFDIR, "pdir": modes.S_IFDIR, "file": modes.S_IFREG}


def quoted(path: bytes, *, wide: bool) -> str:
    """A path in a URL. Raises StorageFailed NAME for what no server can be asked for, and for bytes above
    0x7f unless the server is ``wide``: Globus' own, spoken to in clear, drops them and means another file."""
    if _NEVER.search(path):
        raise StorageFailed(
            f"{shown(path)}: a name with control characters cannot be told to GridFTP", Trouble.NAME
        )
    if not wide and not path.isascii():
        raise StorageFailed(
            f"{shown(path)}: this GridFTP server loses what is not ASCII in a name", Trouble.NAME
        )
    return quote(path, safe="/")


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a list as it arrives. A name that holds a line break itself comes out whole."""
    rest, held = b"", b""
    for piece in itertools.chain(pieces, (b"\r\n",)):
        *whole, rest = (rest + piece).split(b"\r\n")
        for line in whole:
            if _LINE.match(line):
                if held:
                    yield held
                held = line
            elif held and line:
                held += b"\r\n" + line
    if held:
        yield held


def entry(line: bytes, *, follow: bool) -> Entry | None:
    """Of one line; None for the folder itself and its parent, and for what is no such line. A link is told
    as such unless ``follow``."""
    found = _LINE.match(line)
    if found is None:
        return None
    facts = _told(found[1])
    kind = facts.get("type", "file").lower()
    name = found[2].rpartition(b"/")[2]
    if not follow and (kind in ("cdir", "pdir") or name in (b"", b".", b"..")):
        return None
    if not follow and ("unix.slink" in facts or "slink" in kind):
        type_, default = modes.S_IFLNK, 0o777
    else:
        type_ = _KINDS.get(kind, modes.S_IFIFO)
        default = 0o755 if type_ == modes.S_IFDIR else 0o644
    mode = int(facts.get("unix.mode", ""), 8) if facts.get("unix.mode", "").isdigit() else default
    at, unique = _time(facts.get("modify", "")), facts.get("unique", "")
    size = _number(facts.get("size", facts.get("sizd", "")))
    return Entry(
        name=name,
        mode=type_ | (mode & 0o7777),
        size=size,
        mtime_ns=at,
        uid=_number(facts.get("unix.uid", "")),
        gid=_number(facts.get("unix.gid", "")),
        atime=at // 10**9,
        ctime=at // 10**9,
        version=f"{unique}:{at}:{size}" if at or unique else "",
    )


def _told(facts: bytes) -> dict[str, str]:
    pairs = (fact.partition(b"=") for fact in facts.split(b";") if fact)
    return {
        key.decode("latin-1").lower(): value.decode("utf-8", "surrogateescape") for key, _, value in pairs
    }


def link_of(line: bytes) -> bytes:
    """Where it leads, with all links on the way resolved by the server; b"" when it is no link."""
    found = _LINE.match(line)
    slink = _told(found[1]).get("unix.slink", "") if found else ""
    return slink.encode("utf-8", "surrogateescape")


def _time(text: str) -> int:
    """ns since 1970; 0 where it is not told."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    try:
        seconds = calendar.timegm(time.strptime(found[1], "%Y%m%d%H%M%S"))
    except ValueError:
        return 0
    return seconds * 10**9 + int((found[2] or "0").ljust(9, "0"))


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
