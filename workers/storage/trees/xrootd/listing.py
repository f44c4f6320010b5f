"""What is in a folder.

Three faults stand between a listing and the truth:
- A server's listing with attributes ends, as if that were all, at the first name of which it can tell none (a
  link that leads nowhere; seen with XRootD 5.5.3). So the names alone are asked for first, and whatever the
  listing with attributes has not is asked for by name.
- The library's Python half (6.2.1) dies, and the process with it, of names that are not UTF-8 or have a
  newline where an answer comes piece by piece; where it comes as a whole it only says so. So all of it is
  asked for at once: 0.7 KB of memory for each name, for a moment.
- With attributes it would be five times as much: in large folders they are asked for name by name, many
  questions under way at once.
"""

from __future__ import annotations

import stat as modes
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from workers.storage.base import StorageFailed, Trouble
from workers.storage.trees.base import Entry, shown
from workers.storage.trees.xrootd import errors
from workers.storage.trees.xrootd.client import REQUEST_S, Asked, Server, StatInfoFlags, asked

#: Names in a folder whose attributes are asked for in one request; questions under way in a larger one.
_AT_ONCE: Final = 10_000
_UNDER_WAY: Final = 128
#: Bytes of names in memory; the rest is in a file.
_IN_MEMORY: Final = 1 << 20
_INVALID: Final = 303


def entry_of(name: str, told: dict[str, Any]) -> Entry:
    """From what the library calls StatInfo."""
    mode = int(told["mode"], 8) if told["extended"] and told["mode"] else None
    if told["flags"] & StatInfoFlags.IS_DIR:
        mode = modes.S_IFDIR | (0o755 if mode is None else mode)
    elif told["flags"] & StatInfoFlags.OTHER:
        mode = modes.S_IFIFO | (0o644 if mode is None else mode)  # which kind is not told
    else:
        mode = modes.S_IFREG | (0o644 if mode is None else mode)
    return Entry(
        name=name.encode(),
        mode=mode,
        size=told["size"],
        mtime_ns=told["modtime"] * 1_000_000_000,
        atime=told["atime"] if told["extended"] else 0,
        ctime=told["ctime"] if told["extended"] else 0,
        version=f"{told['id']}-{told['modtime']}-{told['size']}",
    )


def listed(server: Server, path: bytes, text: str) -> Iterator[Entry]:
    """What is in the folder. Raises StorageFailed."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, mode="w+", encoding="utf-8", newline="\n") as spool:
        count = 0
        for name in _names(server, path, text):
            spool.write(name + "\n")
            count += 1
        spool.seek(0)
        if count <= _AT_ONCE:
            rows = _list(server, path, text, attributes=True)
            yield from _together(server, path, text, spool, rows)
        else:
            yield from _one_by_one(server, path, text, spool)


def links_told(server: Server, text: str, version: str, found: Iterable[Entry]) -> Iterator[Entry]:
    """Entries of the folder ``text``, and of those that are called folders the links as links.

    A server follows every link, and says of nothing that it is one. But what is above a folder (``..``, which
    it takes at the end of a path only) is the folder that it is in, and what is above a link's is not. A link
    to a folder beside it stays a folder: what is in that is in this one, too. Where a server does not tell,
    all stay what they were. ``version`` is the folder's own.
    """
    own = _identity(version)
    under_way: deque[tuple[Entry, Asked | None]] = deque()
    for entry in chain(found, [None] * _UNDER_WAY):
        if entry is not None:
            above = f"{_below(text, entry.name.decode())}/.."
            under_way.append((entry, asked(server.files.stat, above) if entry.is_folder else None))
        if not under_way or (entry is not None and len(under_way) < _UNDER_WAY):
            continue
        first, answer = under_way.popleft()
        if answer is not None:
            status, told = server.answered(first.name, answer)
            if status.ok and _identity(entry_of("", vars(told)).version) != own:
                first = first._replace(mode=modes.S_IFLNK | 0o777)
        yield first


def _identity(version: str) -> str:
    """Of a version what does not change with the content."""
    return version.rsplit("-", 2)[0]


def _names(server: Server, path: bytes, text: str) -> Iterator[str]:
    for found in _list(server, path, text, attributes=False):
        yield found["name"]


def _list(server: Server, path: bytes, text: str, *, attributes: bool) -> list[dict[str, Any]]:
    try:
        status, found = server.listed(text, attributes=attributes)
    except SystemError:
        raise _unspeakable(server, path, "is not UTF-8") from None
    if status.code == _INVALID:
        raise _unspeakable(server, path, "has a newline in it")
    if not status.ok:
        raise errors.failed(server.shown, shown(path), status)
    return found


def _together(
    server: Server, path: bytes, text: str, names: Iterable[str], rows: Iterable[dict[str, Any]]
) -> Iterator[Entry]:
    """The names of one listing come in the order of the other, as long as nothing changes between them."""
    told = iter(rows)
    row = next(told, None)
    left: list[str] = []
    for line in names:
        name = line[:-1]
        if row is not None and row["name"] == name:
            yield entry_of(name, row["statinfo"])
            row = next(told, None)
        else:
            left.append(line)
    yield from _one_by_one(server, path, text, left)


def _one_by_one(server: Server, path: bytes, text: str, names: Iterable[str]) -> Iterator[Entry]:
    """Ask for each."""
    under_way: deque[tuple[str, Asked]] = deque()
    before = ""  # the name that was missing right before
    for line in chain(names, [""] * _UNDER_WAY):
        if line:
            under_way.append((line[:-1], asked(server.files.stat, _below(text, line[:-1]))))
        if not under_way or (line and len(under_way) < _UNDER_WAY):
            continue
        name, answer = under_way.popleft()
        try:
            told = server.result(path.rstrip(b"/") + b"/" + name.encode(), answer)
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            if before and server.files.stat(_below(text, f"{before}\n{name}"), timeout=REQUEST_S)[0].ok:
                raise _unspeakable(server, path, "has a newline in it") from None
            before = name
            # It has gone meanwhile, or is a link that leads nowhere.
            yield Entry(name=name.encode(), mode=modes.S_IFLNK | 0o777)
        else:
            before = ""
            yield entry_of(name, vars(told))


def _below(text: str, name: str) -> str:
    return f"{text.rstrip('/')}/{name}"


def _unspeakable(server: Server, path: bytes, why: str) -> StorageFailed:
    return StorageFailed(
        f"{server.shown}: {shown(path)} cannot be listed: a name in it {why}, which XRootD's client cannot "
        f"tell; rename it at the server",
        Trouble.NAME,
    )
