"""The part of a file below one folder, by descriptors; renames that replace nothing.

Every file is on disk (fdatasync) before it gets its name: else a machine that loses its power may show an
empty or torn file under it, although the job is done. What that costs, and why the folder is not flushed
after the rename: docs/decisions/0082-local-sites.md.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as modes
from typing import Final

from workers.storage.trees.base import Entry, Keeping, Part, StorageFailed, Traits, Trouble
from workers.storage.trees.filling import Filling, discard_parts
from workers.storage.trees.local.beneath import Root
from workers.storage.trees.local.errors import failed
from workers.storage.trees.local.reading import digest, entry_of, pieces_of

_NO_REPLACE: Final = 1  # RENAME_NOREPLACE
#: The C library, the kernel or the file system has no such rename.
_UNKNOWN: Final = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_KEPT_MODE: Final = 0o777
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_sync_file_range = getattr(_libc, "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def name_of(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def rename(source: int, name: bytes, target: int, new: bytes, *, overwrite: bool) -> None:
    """From one folder's descriptor to another's. With ``overwrite`` a file takes a file's place, as ever; no
    folder is replaced, not even an empty one. Raises OSError: EEXIST, EISDIR, ENOENT ..."""
    if overwrite and not _is_folder(source, name):
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
        return
    if _renameat2 is not None:
        if _renameat2(source, name, target, new, _NO_REPLACE) == 0:
            return
        if (number := ctypes.get_errno()) not in _UNKNOWN:
            raise OSError(number, os.strerror(number))
    _rename_by_link(source, name, target, new)


def _rename_by_link(source: int, name: bytes, target: int, new: bytes) -> None:
    """A second name, which is given only where there is none, then the first one goes. What can have no
    second one (a folder; some file systems) is renamed after a look."""
    try:
        os.link(name, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    else:
        os.unlink(name, dir_fd=source)
        return
    try:
        os.stat(new, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _is_folder(folder: int, name: bytes) -> bool:
    return modes.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _ours(found: os.stat_result) -> bool:
    """Is it a file with one name? Not a link, nor a second name of another file, which somebody has put there
    to have that one written."""
    return modes.S_ISREG(found.st_mode) and found.st_nlink == 1


class LocalWriting:
    """``filling.Shelf`` and its ``Writer`` of one file: all paths are in the folder ``path`` is in."""

    def __init__(self, root: Root, traits: Traits, path: bytes) -> None:
        """Raises StorageFailed: MISSING, the folder."""
        self.traits = traits
        self._root = root
        self._path = path
        self._file = self._folder = -1
        self._at = 0
        self.enter()

    # --- shelf --------------------------------------------------------------------------------------------

    def open_part(self, part: bytes, offset: int) -> LocalWriting:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW  # read for its checksum
        name = name_of(part)
        try:
            if offset:
                self._file = os.open(name, flags, dir_fd=self._folder)
                if not _ours(os.fstat(self._file)):  # it has become another since ``size_of``
                    self.close()
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            else:
                flags |= os.O_CREAT | os.O_EXCL
                try:
                    self._file = os.open(name, flags, 0o666, dir_fd=self._folder)
                except FileExistsError:
                    os.unlink(name, dir_fd=self._folder)
                    self._file = os.open(name, flags, 0o666, dir_fd=self._folder)
        except OSError as error:
            raise failed(error, self._path) from error
        self._at = offset
        return self

    def size_of(self, part: bytes) -> int | None:
        """None also for what is not ours alone."""
        try:
            if self._file >= 0:
                return os.fstat(self._file).st_size
            found = os.stat(name_of(part), dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(error, self._path) from error
        return found.st_size if _ours(found) else None

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        try:
            rename(self._folder, name_of(part), self._folder, name_of(target), overwrite=overwrite)
        except IsADirectoryError as error:
            raise failed(FileExistsError(errno.EEXIST, ""), self._path) from error
        except OSError as error:
            raise failed(error, self._path) from error

    def unlink(self, part: bytes) -> None:
        try:
            os.unlink(name_of(part), dir_fd=self._folder)
        except OSError as error:
            raise failed(error, part) from error

    def keep(self, part: bytes, keeping: Keeping) -> None:
        """By descriptor: a name could have become a link. Never setuid, setgid or sticky: the file is the
        worker's, whoever's it was at the source."""
        try:
            if keeping.mode is not None:
                os.fchmod(self._file, keeping.mode & _KEPT_MODE)
            if keeping.mtime_ns is not None:
                os.utime(self._file, ns=(keeping.mtime_ns, keeping.mtime_ns))
        except OSError as error:
            raise failed(error, self._path) from error

    def stat(self, path: bytes) -> Entry:
        """Of what has been written."""
        return entry_of(name_of(path), os.fstat(self._file))

    def checksum(self, path: bytes, algorithm: str) -> str:
        return digest(pieces_of(self._file, self._path, 0, os.fstat(self._file).st_size), algorithm)

    @property
    def descriptor(self) -> int:
        return self._file

    # --- writer -------------------------------------------------------------------------------------------

    def write(self, piece: bytes) -> None:
        try:
            done = os.pwrite(self._file, piece, self._at)
            self._at += done
            while done < len(piece):
                more = os.pwrite(self._file, memoryview(piece)[done:], self._at)
                done += more
                self._at += more
        except OSError as error:
            raise failed(error, self._path) from error

    def hurry(self) -> None:
        """Its way to the disk begins; nobody waits, and what goes wrong is told by ``finish``."""
        if _sync_file_range is not None:
            _sync_file_range(self._file, 0, 0, _WRITE)

    def finish(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise failed(error, self._path) from error

    def close(self) -> None:
        """Also after it ``unlink`` still works."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def enter(self) -> None:
        """Hold the folder, if it is not held yet. Raises StorageFailed."""
        if self._folder < 0:
            try:
                self._folder, _ = self._root.parent(self._path)
            except OSError as error:
                raise failed(error, self._path.rpartition(b"/")[0] or b"/") from error

    def leave(self) -> None:
        """Free everything."""
        self.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class LocalFilling(Filling):
    """A ``base.Receiving``."""

    def __init__(self, root: Root, traits: Traits, path: bytes, part: Part, size: int) -> None:
        self._writing = LocalWriting(root, traits, path)
        try:
            super().__init__(self._writing, path, part, size)
        except BaseException:
            self._writing.leave()
            raise

    def send(self, piece: bytes) -> None:
        super().send(piece)
        if self._sent == self.size:
            self._writing.hurry()

    @property
    def descriptor(self) -> int:
        """Of the part, for another protocol's own tool that fills it; then ``filled``."""
        return self._writing.descriptor

    def filled(self) -> None:
        """By way of ``descriptor``."""
        self._writing.finish()
        self._filled = True

    def discard(self) -> None:
        """Also when it has been closed."""
        self._writing.enter()
        super().discard()

    def close(self) -> None:
        self._writing.leave()


def discard(root: Root, traits: Traits, path: bytes, part: Part) -> None:
    """What is left beside ``path``; quiet where its folder is gone, too."""
    try:
        writing = LocalWriting(root, traits, path)
    except StorageFailed as refused:
        if refused.trouble in (Trouble.MISSING, Trouble.NOT_FOLDER):
            return
        raise
    try:
        discard_parts(writing, path, part)
    finally:
        writing.leave()
