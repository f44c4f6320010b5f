"""Removing a folder that a command has filled, whatever it has put there. Standard library only.

No recursion, and as many descriptors for 20,000 nested folders as for two: a folder that is not empty is
moved up into the top one before it is emptied, so that nothing is ever deeper than that. By descriptors: no
link is followed, also none that takes a folder's place meanwhile. A mount is not entered: each folder is to
be removed first, and of a mount point the kernel says EBUSY, not that it is not empty. Rights and flags that
keep us out are taken away. What cannot be removed stays alone: everything around it goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: ioctl numbers: read and write the flags of a file, a C `int` although they are declared with a `long`.
_GET_FLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_SET_FLAGS = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
_FLAGS = struct.Struct("i4x")
#: "Immutable" and "append only" (chattr +i, +a): then root may not remove it either.
_LOCKED = 0x10 | 0x20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: While each finds something: a full disk takes no move before files have gone; others may write meanwhile.
_PASSES = 8
#: Levels at which a folder that cannot be moved (an overlay's lower layers) is emptied where it is.
_IN_PLACE = 16
#: It has gone, or has become something else: what it is now the next pass sees.
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)
_REMEDIES = {
    errno.EBUSY: "something is mounted there, or the kernel uses it: unmount it (findmnt, umount)",
    errno.EROFS: "its file system is read-only: see dmesg, mend it, mount it for writing",
    errno.EIO: "its disk cannot be read or written: see dmesg, check the file system",
    errno.ENOSPC: "its disk is full: give it space",
}


class NotRemovedError(OSError):
    """Something of a folder is still there; the text names it, says why, and what to do."""


def remove(path: str) -> None:
    """Remove a folder and everything in it; it may be gone, or be a link or file, which goes itself.

    What it lies in is not touched. Raises NotRemovedError when everything is gone that can be removed.
    """
    above, name = os.path.split(path)
    try:
        parent = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(parent, name, path)
    except NotRemovedError:
        raise
    except OSError as error:
        left = _Left()
        left.add(path, error)
        raise NotRemovedError(left.text(path)) from error
    finally:
        os.close(parent)


def _remove(parent: int, name: str, path: str) -> None:
    left = _Left()
    for _ in range(_PASSES):
        if _gone(parent, name):
            return
        changes, left = left.changes, _Left(left.changes)
        try:
            top = _open(parent, name)
        except OSError as error:
            if error.errno in _CHANGED:
                continue
            raise
        try:
            _Pass(top, path, left).empty()
        finally:
            os.close(top)
        if left.changes == changes:
            break
    if not _gone(parent, name):
        raise NotRemovedError(left.text(path))


def _gone(parent: int, name: str) -> bool:
    """Is it gone now? False for a folder that is not empty, which is no mount point. Raises OSError."""
    try:
        _insist(lambda: os.rmdir(name, dir_fd=parent), (), parent, name)
    except OSError as error:
        if error.errno in _NOT_EMPTY:
            return False
        if error.errno == errno.ENOTDIR:
            os.unlink(name, dir_fd=parent)
        elif error.errno != errno.ENOENT:
            raise
    return True


class _Left:
    """What could not be removed: the first one of it in words."""

    def __init__(self, changes: int = 0) -> None:
        self.changes = changes  # how much has gone, or become something else
        self.count = 0
        self._first = ""

    def add(self, path: str, error: OSError) -> None:
        self.count += 1
        if not self._first:
            self._first = f"{_shown(path)} cannot be removed: {_remedy(error)}"

    def meet(self, path: str, error: OSError) -> None:
        if error.errno in _CHANGED:
            self.changes += 1
        else:
            self.add(path, error)

    def text(self, path: str) -> str:
        if not self.count:
            return f"{_shown(path)} cannot be removed: something goes on writing there: end it (fuser -v)"
        return self._first if self.count == 1 else f"{self._first} (and {self.count - 1} more)"


class _Pass:
    """Once through a folder and all that is moved up into it."""

    def __init__(self, top: int, path: str, left: _Left) -> None:
        self._top = top
        self._path = path
        self._left = left
        # Another one each time: what an earlier pass has moved and could not empty is tried like the rest.
        self._prefix = f".removing-{os.urandom(8).hex()}-"
        self._moved = 0

    def empty(self) -> None:
        self._clear(self._top, self._path, 0)
        number = 0
        while number < self._moved:
            self._enter(self._top, self._path, f"{self._prefix}{number}", 0)
            number += 1

    def _clear(self, folder: int, path: str, depth: int) -> None:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(self._prefix):
                        self._discard(folder, path, entry, depth)
        except OSError as error:
            self._left.add(path, error)

    def _discard(self, folder: int, path: str, entry: os.DirEntry[str], depth: int) -> None:
        try:
            go = os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink
            _insist(lambda: go(entry.name, dir_fd=folder), (folder,), folder, entry.name)
            self._left.changes += 1
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                self._move(folder, path, entry.name, depth)
            else:
                self._left.meet(os.path.join(path, entry.name), error)

    def _move(self, folder: int, path: str, name: str, depth: int) -> None:
        new = f"{self._prefix}{self._moved}"
        try:
            _insist(
                lambda: os.rename(name, new, src_dir_fd=folder, dst_dir_fd=self._top),
                (folder, self._top),
                folder,
                name,
            )
            self._moved += 1
        except OSError as error:
            if error.errno == errno.EXDEV and depth < _IN_PLACE:
                self._enter(folder, path, name, depth + 1)
            else:
                self._left.meet(os.path.join(path, name), error)

    def _enter(self, folder: int, path: str, name: str, depth: int) -> None:
        try:
            inner = _open(folder, name)
            try:
                self._clear(inner, os.path.join(path, name), depth)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=folder)
            self._left.changes += 1
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                self._left.meet(os.path.join(path, name), error)


def _open(folder: int, name: str) -> int:
    """A folder, to be read. Raises OSError; ENOTDIR or ELOOP: it is none."""
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except PermissionError:
        _unlock_in(folder, name)
        return os.open(name, _FOLDER, dir_fd=folder)


def _insist(act: Callable[[], None], changed: tuple[int, ...], folder: int, name: str) -> None:
    """Do it; if need be with all rights in the folders that it changes, and to what it is about.

    Raises OSError.
    """
    try:
        act()
    except PermissionError:
        for each in changed:
            _unlock(each)
        _unlock_in(folder, name)
        act()


def _unlock_in(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        found = os.open(name, _LOOK, dir_fd=folder)
        try:
            _unlock(found)
        finally:
            os.close(found)


def _unlock(file: int) -> None:
    """Take away what keeps us from emptying a folder, or from removing a folder or file.

    A file with a second name is left as it is: that name may be anybody's.
    """
    found = os.fstat(file)
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and (not stat.S_ISREG(found.st_mode) or found.st_nlink > 1):
        return
    path = f"/proc/self/fd/{file}"  # the object itself, whatever has its name now
    with contextlib.suppress(OSError):
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = flags_of(opened)
            if flags & _LOCKED:
                set_flags(opened, flags & ~_LOCKED)
        finally:
            os.close(opened)
    if is_folder and found.st_mode & 0o700 != 0o700:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)


def flags_of(file: int) -> int:
    """The flags of an open file (chattr, lsattr). Raises OSError where its file system has none."""
    (flags,) = _FLAGS.unpack(fcntl.ioctl(file, _GET_FLAGS, bytes(_FLAGS.size)))
    return int(flags)


def set_flags(file: int, flags: int) -> None:
    """Raises OSError."""
    fcntl.ioctl(file, _SET_FLAGS, _FLAGS.pack(flags))


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"user {os.geteuid()} may not: remove it as root (if lsattr shows i or a: chattr -R -ia first)"
    return _REMEDIES.get(error.errno or 0) or f"{error.strerror or error}: remove it by hand"


def _shown(path: str) -> str:
    """A path in a log and in a database, whatever bytes a command gave it."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
