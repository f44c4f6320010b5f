"""Parts: written with several requests under way, made visible by a rename; small ones in 3 round trips."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncssh
from asyncssh.constants import FXF_CREAT, FXF_EXCL, FXF_WRITE

from workers.storage.trees.base import Entry, Keeping, StorageFailed, Traits, Trouble, shown
from workers.storage.trees.sftp.errors import told, translated
from workers.storage.trees.sftp.line import Line
from workers.storage.trees.sftp.lines import Lines
from workers.storage.trees.sftp.places import Places
from workers.storage.trees.sftp.reading import UNCHANGED, entry, is_file, is_folder

#: What is kept until it is sent, in bytes: less is sent at the end, together with what ends the file.
_KEPT: Final = 512 * 1024
_NOTHING: Final = Keeping()


@dataclass(frozen=True)
class Opened:
    """A part that is open at the server; its connection counts it until it is ``closed``."""

    line: Line
    handle: bytes

    def closed(self) -> asyncio.Task[None]:
        """Sent, behind all that was sent before."""
        self.line.files -= 1
        return self.line.send(self.line.sftp.close(self.handle))


async def open_part(line: Line, places: Places, part: bytes, offset: int) -> Opened:
    """Anew at offset 0: whatever has the name is removed, a link is never followed. Raises StorageFailed."""
    real = await places.named(line, part)
    flags = FXF_WRITE if offset else FXF_WRITE | FXF_CREAT | FXF_EXCL
    with told(part):
        if offset and not is_file(await line.ask(line.sftp.lstat(real, 0))):
            raise StorageFailed(f"{shown(part)} is not a file any more", Trouble.CHANGED)
        try:
            handle = await line.ask(line.sftp.open(real, flags, UNCHANGED))
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if offset:
                raise
            line.send(line.sftp.remove(real))
            handle = await line.send(line.sftp.open(real, flags, UNCHANGED))
    line.files += 1
    return Opened(line, handle)


async def failed(line: Line, places: Places, part: bytes, error: asyncssh.SFTPError) -> StorageFailed:
    """Why a write failed: OpenSSH has no word for a full disk."""
    if isinstance(error, asyncssh.SFTPFailure):
        with suppress(asyncssh.SFTPError, StorageFailed):
            space = await line.ask(line.sftp.statvfs(await places.named(line, part)))
            if space.bavail * space.frsize < line.sftp.limits.max_write_len:
                return StorageFailed(f"{shown(part)}: the disk is full", Trouble.FULL)
    return translated(error, part)


class Writing:
    """A ``filling.Writer``: opened at the server when there is enough to send, or at the end.

    A request that fails may be followed by some that do not: the part is cut at the first hole then, so that
    whoever goes on with it can believe its size.
    """

    def __init__(self, lines: Lines, places: Places, part: bytes, offset: int) -> None:
        #: Bytes that the server holds, after ``finish``.
        self.size: int | None = None
        self._part = part
        self._lines = lines
        self._places = places
        self._opened: Opened | None = None
        self._offset = offset
        self._next = offset
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._coming: deque[tuple[int, asyncio.Task[int]]] = deque()

    def write(self, piece: bytes) -> None:
        self._kept.append(piece)
        self._kept_size += len(piece)
        if self._kept_size >= _KEPT:
            self._have(self._some)

    def finish(self) -> None:
        self._have(self._rest)

    def close(self) -> None:
        if self._opened is not None:
            self._lines.later(self._let_go(self._opened))
            self._opened = None

    def _have(self, work: Callable[[Opened], Coroutine[Any, Any, None]]) -> None:
        """Have it done on the connection that the part is open on."""
        opened = self._opened
        if opened is None:
            self._lines.do(self._part, lambda line: self._open_and(line, work))
        else:
            self._lines.then(self._part, work(opened))

    async def _open_and(self, line: Line, work: Callable[[Opened], Coroutine[Any, Any, None]]) -> None:
        self._opened = await open_part(line, self._places, self._part, self._offset)
        await work(self._opened)

    def _send(self, opened: Opened) -> None:
        """All that is kept."""
        line, data = opened.line, self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        self._kept, self._kept_size = [], 0
        most = line.sftp.limits.max_write_len
        for at in range(0, len(data), most):
            piece = data[at : at + most]
            self._coming.append((self._next, line.send(line.sftp.write(opened.handle, self._next, piece))))
            self._next += len(piece)

    async def _some(self, opened: Opened) -> None:
        """Send what is kept; wait until not too much is under way. What has failed is heard of now, not when
        so much is under way: whoever sends slowly would send to nobody for long."""
        while self._coming and self._coming[0][1].done():
            await self._answered(opened.line)
        self._send(opened)
        most = opened.line.ahead(opened.line.sftp.limits.max_write_len)
        while len(self._coming) > most:
            await self._answered(opened.line)

    async def _rest(self, opened: Opened) -> None:
        """All that is left, on the server's disk; how much it is; closed."""
        self._send(opened)
        syncing = opened.line.send(opened.line.sftp.fsync(opened.handle))
        looking = opened.line.send(opened.line.sftp.fstat(opened.handle, 0))
        closing = opened.closed()
        self._opened = None
        while self._coming:
            await self._answered(opened.line)
        with told(self._part):
            with suppress(asyncssh.SFTPOpUnsupported):  # then it cannot promise that
                await syncing
            size = (await looking).size or 0
            await closing
        self.size = size

    async def _answered(self, line: Line) -> None:
        """The next answer."""
        offset, task = self._coming.popleft()
        try:
            await task
        except asyncssh.SFTPError as error:
            await asyncio.gather(*(later for _, later in self._coming), return_exceptions=True)
            self._coming.clear()
            real = await self._places.named(line, self._part)
            with told(self._part):
                await line.ask(line.sftp.setstat(real, asyncssh.SFTPAttrs(size=offset)))
            raise await failed(line, self._places, self._part, error) from error

    async def _let_go(self, opened: Opened) -> None:
        opened.closed()


class Shelf:
    """What ``Filling`` asks for. One for each file: it remembers what the server has told already, and sends
    what is to be kept together with the rename."""

    def __init__(self, lines: Lines, places: Places, traits: Traits) -> None:
        self.traits = traits
        self._lines = lines
        self._places = places
        self._writing: Writing | None = None
        self._keeping = Keeping()
        self._seen: Entry | None = None

    def open_part(self, part: bytes, offset: int) -> Writing:
        self._writing = Writing(self._lines, self._places, part, offset)
        return self._writing

    def size_of(self, part: bytes) -> int | None:
        if self._writing is not None and self._writing.size is not None:
            return self._writing.size
        try:
            found = self._lines.do(part, lambda line: lstat(line, self._places, part))
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                return None
            raise
        return found.size or 0 if is_file(found) else None

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        keeping = self._keeping
        self._seen = self._lines.do(
            target,
            lambda line: rename(line, self._places, part, target, overwrite=overwrite, keeping=keeping),
        )

    def unlink(self, part: bytes) -> None:
        self._lines.do(part, lambda line: remove(line, self._places, part))

    def keep(self, part: bytes, keeping: Keeping) -> None:
        self._keeping = keeping

    def stat(self, path: bytes) -> Entry:
        """What ``move`` saw."""
        if self._seen is None:
            found = self._lines.do(path, lambda line: lstat(line, self._places, path))
            self._seen = entry(path.rpartition(b"/")[2], found)
        return self._seen

    def checksum(self, path: bytes, algorithm: str) -> str:
        """SFTP 3 has no word for it."""
        return ""


async def lstat(line: Line, places: Places, path: bytes) -> asyncssh.SFTPAttrs:
    """Of a link itself."""
    real = await places.named(line, path)
    with told(path):
        return await line.ask(line.sftp.lstat(real, 0))


async def remove(line: Line, places: Places, path: bytes) -> None:
    """A file or a link."""
    real = await places.named(line, path)
    with told(path):
        await line.ask(line.sftp.remove(real))


async def rename(
    line: Line, places: Places, source: bytes, target: bytes, *, overwrite: bool, keeping: Keeping = _NOTHING
) -> Entry:
    """Returns what is there then. Where the server can do it in one step, it is asked in one round trip."""
    old, new = await places.named(line, source), await places.named(line, target)
    if not (overwrite or line.openssh):
        await _refuse_existing(line, new, target)
    if keeping != _NOTHING:
        line.send(line.sftp.setstat(old, _attributes(keeping)))
    renaming = line.send(line.sftp.posix_rename(old, new) if overwrite else line.sftp.rename(old, new, 0))
    looking = line.send(line.sftp.lstat(new, 0))
    try:
        await renaming
        with told(target):
            return entry(target.rpartition(b"/")[2], await looking)
    except asyncssh.SFTPNoSuchFile as error:
        raise translated(error, source) from error
    except asyncssh.SFTPOpUnsupported as error:
        raise StorageFailed(
            f"{shown(target)}: the server cannot replace a file in one step (posix-rename@openssh.com)",
            Trouble.OTHER,
        ) from error
    except asyncssh.SFTPError as error:
        if isinstance(error, asyncssh.SFTPFailure):
            with suppress(asyncssh.SFTPNoSuchFile):
                if is_folder(await looking) or not overwrite:
                    raise exists(target) from error
        raise translated(error, target) from error


async def _refuse_existing(line: Line, real: bytes, path: bytes) -> None:
    with suppress(asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        await line.ask(line.sftp.lstat(real, 0))
        raise exists(path)


def exists(path: bytes) -> StorageFailed:
    return StorageFailed(f"{shown(path)} is there already", Trouble.EXISTS)


def _attributes(keeping: Keeping) -> asyncssh.SFTPAttrs:
    """SFTP 3 sets both times or none, in whole seconds."""
    found = asyncssh.SFTPAttrs()
    if keeping.mode is not None:
        found.permissions = keeping.mode & 0o777
    if keeping.mtime_ns is not None:
        found.atime = found.mtime = max(0, keeping.mtime_ns // 1_000_000_000)
    return found
