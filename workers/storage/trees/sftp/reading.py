"""Files and folders, streamed: several requests are under way while what has come is used."""

from __future__ import annotations

import asyncio
import stat as modes
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

import asyncssh
from asyncssh.constants import FXF_READ

from workers.storage.trees.base import Entry, StorageFailed, Trouble, shown
from workers.storage.trees.sftp.errors import told
from workers.storage.trees.sftp.line import Line
from workers.storage.trees.sftp.lines import Lines
from workers.storage.trees.sftp.places import Places

#: Most bytes that are handed over at once.
_MOST: Final = 1 << 20
#: Questions for names of a folder that are under way at once.
_NAMES_AHEAD: Final = 4
#: SFTP 3 tells times in whole seconds: what was changed this short a time ago may be changed again within the
#: same second, so that nobody could tell.
_SETTLED_S: Final = 2.0
#: For requests that set none.
UNCHANGED: Final = asyncssh.SFTPAttrs()


def entry(name: bytes, found: asyncssh.SFTPAttrs) -> Entry:
    """What a server tells; ``version`` is "" while it would not change with the content."""
    mode = found.permissions or 0o644
    if not modes.S_IFMT(mode):
        mode |= modes.S_IFREG
    return Entry(
        name=name,
        mode=mode,
        size=found.size or 0,
        mtime_ns=(found.mtime or 0) * 1_000_000_000 + (found.mtime_ns or 0),
        nlink=found.nlink or 1,
        uid=found.uid or 0,
        gid=found.gid or 0,
        atime=found.atime or 0,
        ctime=found.ctime or 0,
        version=version_of(found) if _settled(found) else "",
    )


def version_of(found: asyncssh.SFTPAttrs) -> str:
    return f"{found.size or 0}-{found.mtime or 0}"


def _settled(found: asyncssh.SFTPAttrs) -> bool:
    return time.time() - (found.mtime or 0) > _SETTLED_S


class Reading:
    """A file that is open for reading, on one connection. ``over``: it is not any more.

    What is small has come, and is closed, when ``open`` returns: threads are asked once.
    """

    def __init__(self, line: Line, path: bytes, handle: bytes, begin: int, end: int) -> None:
        self._line = line
        self._path = path
        self._handle = handle
        self._next = begin
        self._end = end
        self._piece = min(line.sftp.limits.max_read_len, _MOST)
        self._coming: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        self._first: list[bytes] = []
        self.over = False
        line.files += 1

    @classmethod
    async def open(cls, line: Line, places: Places, path: bytes, offset: int, version: str) -> Reading:
        """Raises StorageFailed; also CHANGED."""
        real, found = await places.looked_at(line, path)
        refuse_others(path, found)
        with told(path):
            handle = await line.ask(line.sftp.open(real, FXF_READ, UNCHANGED))
        reading = cls(line, path, handle, offset, max(found.size or 0, offset + 1))
        try:
            looking = line.send(line.sftp.fstat(handle, 0))
            reading._send_more()
            with told(path):
                found = await looking
            if version and version_of(found) != version:
                raise StorageFailed(f"{shown(path)} is not the version any more that it was", Trouble.CHANGED)
            reading._end = max(found.size or 0, offset + 1)
            reading._first = await reading._came()
        except BaseException:
            reading.close()
            raise
        return reading

    def pieces(self, lines: Lines) -> Iterator[bytes]:
        """For another thread."""
        came, self._first = self._first, []
        yield from came
        while not self.over:
            yield from lines.then(self._path, self._came())

    def close(self) -> None:
        """In the loop's thread."""
        if not self.over:
            self.over = True
            self._line.files -= 1
            self._coming.clear()  # they come, and nobody looks
            self._line.close_handle(self._handle)

    async def closed(self) -> None:
        self.close()

    async def _came(self) -> list[bytes]:
        """What has come: at least one piece if there is any more, about 1 MiB of them at most."""
        came: list[bytes] = []
        size = 0
        self._send_more()
        while self._coming and size < _MOST:
            due, task = self._coming[0]
            if came and not task.done():
                break
            with told(self._path):
                piece = await task
            self._coming.popleft()
            if piece:
                came.append(piece)
                size += len(piece)
            if len(piece) < due:  # it has become shorter
                self._coming.clear()
                self._next = self._end
        self._send_more()
        if not self._coming:
            self.close()
        return came

    def _send_more(self) -> None:
        most = self._line.ahead(self._piece)
        while self._next < self._end and len(self._coming) < most:
            size = min(self._piece, self._end - self._next)
            self._coming.append((size, self._line.send(self._read(self._next, size))))
            self._next += size

    async def _read(self, offset: int, size: int) -> bytes:
        """All of it, or what there is up to the end."""
        found = b""
        try:
            while len(found) < size:
                more, _ = await self._line.sftp.read(self._handle, offset + len(found), size - len(found))
                found = found + more if found else more
        except asyncssh.SFTPEOFError:
            pass
        return found


class Listing:
    """A folder that is open, on one connection."""

    def __init__(self, line: Line, path: bytes, handle: bytes) -> None:
        self._line = line
        self._path = path
        self._handle = handle
        self._coming: deque[asyncio.Task[list[Entry]]] = deque()
        self._ended = False
        line.files += 1

    @classmethod
    async def open(cls, line: Line, places: Places, path: bytes) -> Listing:
        real = await places.folder(line, path)
        try:
            with told(path):
                listing = cls(line, path, await line.ask(line.sftp.opendir(real)))
        except StorageFailed as failed:
            # OpenSSH says so of a file, too.
            if failed.trouble in (Trouble.MISSING, Trouble.OTHER):
                with told(path):
                    found = await line.ask(line.sftp.stat(real, 0))
                if not is_folder(found):
                    raise StorageFailed(f"{shown(path)} is not a folder", Trouble.NOT_FOLDER) from failed
            raise
        listing._send_more()
        return listing

    def entries(self, lines: Lines) -> Iterator[Entry]:
        """For another thread."""
        try:
            while came := lines.then(self._path, self.more()):
                yield from came
        finally:
            lines.later(self.closed())

    async def closed(self) -> None:
        self._line.files -= 1
        self._line.close_handle(self._handle)

    async def more(self) -> list[Entry]:
        """The next names; none at the end."""
        came: list[Entry] = []
        while self._coming and not came:
            with told(self._path):
                came = await self._coming.popleft()
            self._send_more()
        return came

    def _send_more(self) -> None:
        while not self._ended and len(self._coming) < (_NAMES_AHEAD if self._line.openssh else 1):
            self._coming.append(self._line.send(self._names()))

    async def _names(self) -> list[Entry]:
        try:
            names, _ = await self._line.sftp.readdir(self._handle)
        except asyncssh.SFTPEOFError:
            self._ended = True
            return []
        return [_named(name) for name in names if name.filename not in (b".", b"..")]


def _named(name: asyncssh.SFTPName) -> Entry:
    raw = name.filename
    return entry(raw if isinstance(raw, bytes) else raw.encode(), name.attrs)


def is_file(found: asyncssh.SFTPAttrs) -> bool:
    """As far as it is told: not each server tells modes."""
    return modes.S_IFMT(found.permissions or 0) in (0, modes.S_IFREG)


def is_folder(found: asyncssh.SFTPAttrs) -> bool:
    return modes.S_ISDIR(found.permissions or 0)


def refuse_others(path: bytes, found: asyncssh.SFTPAttrs) -> None:
    """Only regular files are opened: a pipe would keep the server's process waiting for its other end."""
    if is_folder(found):
        raise StorageFailed(f"{shown(path)} is a folder", Trouble.IS_FOLDER)
    if not is_file(found):
        raise StorageFailed(f"{shown(path)} is neither a file nor a folder", Trouble.OTHER)
