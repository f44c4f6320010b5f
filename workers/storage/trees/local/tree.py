"""A folder of the node as a tree."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from workers.storage.trees.base import (
    ALGORITHMS,
    Entry,
    Part,
    Plain,
    Receiving,
    Traits,
    clean,
    inside,
)
from workers.storage.trees.filling import refuse_long
from workers.storage.trees.local.beneath import FOLDER, LOOK, Root
from workers.storage.trees.local.errors import failed
from workers.storage.trees.local.reading import checksum, listed, look, reading
from workers.storage.trees.local.writing import LocalFilling, discard, rename


class LocalTree(Plain):
    """Files are read and written in this process: nothing is copied for us (``copy_here``), since whoever
    verifies has to read both files anyway."""

    traits = Traits(appends=True, times=True, modes=True, any_bytes=True, checksums=ALGORITHMS)

    def __init__(self, root: Root, default_path: bytes = b"/") -> None:
        self.root = root
        self.default_path = default_path

    def stat(self, path: bytes) -> Entry:
        return look(self.root, clean(path))

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = clean(path)
        folder = -1
        try:
            folder = self.root.find(path, FOLDER)
            with os.scandir(folder) as names:
                for name in names:
                    try:
                        found = name.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since
                    yield listed(os.fsencode(name.name), found)
        except OSError as error:
            raise failed(error, path) from error
        finally:
            if folder >= 0:
                os.close(folder)

    def read(
        self, path: bytes, *, offset: int = 0, version: str = ""
    ) -> AbstractContextManager[Iterator[bytes]]:
        return reading(self.root, clean(path), offset, version)

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        return LocalFilling(self.root, self.traits, inside(path), part, size)

    def discard(self, path: bytes, part: Part) -> None:
        discard(self.root, self.traits, inside(path), part)

    def checksum(self, path: bytes, algorithm: str) -> str:
        return checksum(self.root, clean(path), algorithm)

    def remove(self, path: bytes) -> None:
        with self._named(path) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def remove_folder(self, path: bytes) -> None:
        with self._named(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        refuse_long(path)
        with self._named(path) as (folder, name):
            os.mkdir(name, 0o777 if mode is None else mode & 0o777, dir_fd=folder)
            if mode is not None:  # whatever the umask says
                made = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    os.fchmod(made, mode & 0o777)
                finally:
                    os.close(made)

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        refuse_long(target)
        with self._named(source) as (folder, name):
            os.stat(name, dir_fd=folder, follow_symlinks=False)  # MISSING is the source's
            with self._named(target) as (into, new):
                try:
                    rename(folder, name, into, new, overwrite=overwrite)
                except IsADirectoryError as error:
                    raise FileExistsError(errno.EEXIST, "") from error

    def free_space(self, path: bytes) -> int | None:
        """Of the file system of the nearest folder that is there."""
        path = clean(path)
        try:
            found = self.root.find(path, LOOK)
        except (FileNotFoundError, NotADirectoryError):
            return self.free_space(path.rpartition(b"/")[0]) if path != b"/" else None
        except OSError as error:
            raise failed(error, path) from error
        try:
            space = os.fstatvfs(found)
        finally:
            os.close(found)
        return space.f_bavail * space.f_frsize

    def close(self) -> None:
        self.root.close()

    @contextmanager
    def _named(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The folder of ``path`` and its name there; an OSError within is a refusal of ``path``."""
        path = inside(path)
        folder = -1
        try:
            folder, name = self.root.parent(path)
            yield folder, name
        except OSError as error:
            raise failed(error, path) from error
        finally:
            if folder >= 0:
                os.close(folder)
