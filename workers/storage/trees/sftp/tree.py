"""The tree of an SSH server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

import asyncssh
from asyncssh.constants import FXF_READ

from workers.storage.trees.base import (
    STALL_S,
    Entry,
    Part,
    Plain,
    Receiving,
    StorageFailed,
    Traits,
    TransferOptions,
    Tree,
    Trouble,
    clean,
    shown,
)
from workers.storage.trees.filling import Filling, discard_parts, refuse_long
from workers.storage.trees.sftp.errors import told, translated
from workers.storage.trees.sftp.line import Line
from workers.storage.trees.sftp.lines import Lines
from workers.storage.trees.sftp.places import Places
from workers.storage.trees.sftp.reading import UNCHANGED, Listing, Reading, entry, is_folder, refuse_others
from workers.storage.trees.sftp.writing import Shelf, exists, failed, lstat, open_part, remove, rename
from workers.vocabulary.transfers.reach import Reach

T = TypeVar("T")

#: What the server copies by itself between two reports, in bytes: it answers nobody else on that connection
#: meanwhile.
_COPIED: Final = 32 << 20


class SftpTree(Plain):
    """One account of one server."""

    traits = Traits(appends=True, times=True, modes=True, any_bytes=True)

    def __init__(self, reach: Reach, streams: int, *, stall_s: float = STALL_S) -> None:
        self.reach = reach
        self._places = Places()
        self._lines = Lines(reach, streams, stall_s)

    def home(self) -> bytes:
        return self._lines.do(b"~", self._home)

    def stat(self, path: bytes) -> Entry:
        return self._ask(_stat, clean(path))

    def scan(self, path: bytes) -> Iterator[Entry]:
        return self._ask(Listing.open, clean(path)).entries(self._lines)

    @contextmanager
    def _read(self, path: bytes, offset: int, version: str) -> Iterator[Iterator[bytes]]:
        reading = self._ask(Reading.open, path, offset, version)
        try:
            yield reading.pieces(self._lines)
        finally:
            if not reading.over:
                self._lines.later(reading.closed())

    def read(
        self, path: bytes, *, offset: int = 0, version: str = ""
    ) -> AbstractContextManager[Iterator[bytes]]:
        return self._read(clean(path), offset, version)

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        return Filling(self._shelf(), clean(path), part, size)

    def discard(self, path: bytes, part: Part) -> None:
        discard_parts(self._shelf(), clean(path), part)

    def remove(self, path: bytes) -> None:
        self._ask(_remove, clean(path))

    def remove_folder(self, path: bytes) -> None:
        self._ask(_remove_folder, clean(path))

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        refuse_long(clean(path))
        self._ask(_mkdir, clean(path), mode)

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        refuse_long(clean(target))
        self._ask(_rename, clean(source), clean(target), overwrite)

    def free_space(self, path: bytes) -> int | None:
        return self._ask(_free_space, clean(path))

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """By the server itself (extension copy-data, OpenSSH 9.0), where both ends are one account of one
        server."""
        if not (isinstance(source, SftpTree) and isinstance(receiving, Filling)):
            return False
        path = clean(path)
        copying = _Copying(self._places, path, receiving.part)
        if source.reach != self.reach or not self._lines.do(path, copying.open):
            return False
        try:
            while count := self._lines.then(path, copying.more()):
                moved(count)
        finally:
            self._lines.later(copying.closed())
        receiving.filled()
        return True

    def close(self) -> None:
        self._lines.close()

    async def _home(self, line: Line) -> bytes:
        return self._places.home(line)

    def _shelf(self) -> Shelf:
        return Shelf(self._lines, self._places, self.traits)

    def _ask(self, work: Callable[..., Coroutine[Any, Any, T]], path: bytes, *more: Any) -> T:
        return self._lines.do(path, lambda line: work(line, self._places, path, *more))


async def _stat(line: Line, places: Places, path: bytes) -> Entry:
    _, found = await places.looked_at(line, path)
    return entry(path.rpartition(b"/")[2], found)


async def _remove(line: Line, places: Places, path: bytes) -> None:
    try:
        await remove(line, places, path)
    except StorageFailed as failed:
        if failed.trouble in (Trouble.OTHER, Trouble.DENIED) and is_folder(await lstat(line, places, path)):
            raise StorageFailed(f"{shown(path)} is a folder", Trouble.IS_FOLDER) from failed
        raise


async def _remove_folder(line: Line, places: Places, path: bytes) -> None:
    real = await places.named(line, path)
    places.forget()
    try:
        await line.ask(line.sftp.rmdir(real))
    except asyncssh.SFTPError as error:
        refused = translated(error, path)
        if refused.trouble in (Trouble.OTHER, Trouble.MISSING):
            if not is_folder(await lstat(line, places, path)):
                raise StorageFailed(f"{shown(path)} is not a folder", Trouble.NOT_FOLDER) from error
            if await _holds_something(line, places, path):
                raise StorageFailed(f"{shown(path)}: the folder is not empty", Trouble.NOT_EMPTY) from error
        raise refused from error


async def _holds_something(line: Line, places: Places, path: bytes) -> bool:
    listing = await Listing.open(line, places, path)
    try:
        return bool(await listing.more())
    finally:
        await listing.closed()


async def _mkdir(line: Line, places: Places, path: bytes, mode: int | None) -> None:
    if path == b"/":
        raise exists(path)
    real = await places.named(line, path)
    asked = asyncssh.SFTPAttrs()
    if mode is not None:
        asked.permissions = mode & 0o777
    making = line.send(line.sftp.mkdir(real, asked))
    looking = line.send(line.sftp.lstat(real, 0))
    try:
        await making
    except asyncssh.SFTPFailure as error:
        with told(path):
            await looking
        raise exists(path) from error
    except asyncssh.SFTPError as error:
        raise translated(error, path) from error
    if mode is not None:  # whatever the server's umask says
        with told(path):
            await line.ask(line.sftp.setstat(real, asked))


async def _rename(line: Line, places: Places, source: bytes, target: bytes, overwrite: bool) -> None:
    if target.startswith(source + b"/"):
        raise StorageFailed(f"{shown(source)} cannot be moved into itself ({shown(target)})", Trouble.OTHER)
    if overwrite:  # the server would replace an empty folder by another, and has no word for what it refuses
        looking = line.send(lstat(line, places, source)), line.send(lstat(line, places, target))
        folder = is_folder(await looking[0])
        try:
            if is_folder(await looking[1]) or folder:
                raise exists(target)
        except StorageFailed as refused:
            if refused.trouble is not Trouble.MISSING:
                raise
    places.forget()
    await rename(line, places, source, target, overwrite=overwrite)
    places.forget()


async def _free_space(line: Line, places: Places, path: bytes) -> int | None:
    """Of the file system of the nearest folder that is there."""
    while True:
        try:
            real = await places.followed(line, path)
            with told(path):
                space = await line.ask(line.sftp.statvfs(real))
            return space.bavail * space.frsize
        except StorageFailed as refused:
            if isinstance(refused.__cause__, asyncssh.SFTPOpUnsupported):
                return None
            if refused.trouble is not Trouble.MISSING or path == b"/":
                raise
            path = path.rpartition(b"/")[0] or b"/"


class _Copying:
    """A file that the server copies, a part at a time."""

    def __init__(self, places: Places, path: bytes, part: bytes) -> None:
        self._places = places
        self._path = path
        self._part = part
        self._size = 0
        self._at = 0

    async def open(self, line: Line) -> bool:
        """False where the server cannot. Raises StorageFailed."""
        if not line.sftp.supports_copy_data:
            return False
        real, found = await self._places.looked_at(line, self._path)
        refuse_others(self._path, found)
        with told(self._path):
            self._source = await line.ask(line.sftp.open(real, FXF_READ, UNCHANGED))
        try:
            self._target = await open_part(line, self._places, self._part, 0)
        except BaseException:
            line.close_handle(self._source)
            raise
        self._size = found.size or 0
        return True

    async def more(self) -> int:
        """How many bytes more are there; 0 at the end."""
        count = min(_COPIED, self._size - self._at)
        if count:
            line, into = self._target.line, self._target.handle
            try:
                await line.ask(line.sftp.copy_data(self._source, self._at, count, into, self._at))
            except asyncssh.SFTPEOFError as error:
                raise StorageFailed(f"{shown(self._path)} has become shorter", Trouble.CHANGED) from error
            except asyncssh.SFTPError as error:
                raise await failed(line, self._places, self._part, error) from error
            self._at += count
        return count

    async def closed(self) -> None:
        self._target.line.close_handle(self._source)
        self._target.closed()
