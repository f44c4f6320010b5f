"""Opening what is below a folder. Links are followed within it only; no race leads out of it.

With Linux 5.6 or newer the kernel sees to that itself (openat2, RESOLVE_BENEATH). Where it has no such call,
or forbids it (some containers), a path without links is computed and walked a component at a time, none of
them a link: who swaps a folder for one meanwhile is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import Final, Self

from workers.storage.trees.local.errors import failed

_OPENAT2: Final = 437  # the same on every architecture
_NO_MAGIC_LINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08  # linux/openat2.h
#: How often a path is tried that others move while it is walked.
_TRIES: Final = 32
#: Descriptors of what is only looked at.
LOOK: Final = os.O_PATH | os.O_CLOEXEC
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    how = _How(flags, 0, resolve | _NO_MAGIC_LINKS)
    for _ in range(_TRIES):
        found: int = _syscall(_OPENAT2, folder, path, ctypes.addressof(how), ctypes.sizeof(how))
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EAGAIN, "moved")


def _kernel_can() -> bool:
    try:
        os.close(_openat2(-100, b"/", LOOK, 0))
    except OSError:  # ENOSYS; EPERM of a seccomp filter that does not know it
        return False
    return True


class Root:
    """A folder; ``fd`` is its descriptor. Used by many threads."""

    #: Does this kernel keep us below a folder?
    kernel = _kernel_can()

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, allowed: bytes, path: bytes) -> Self:
        """The folder ``path``, which is ``allowed`` or below it and does not leave it by links (those of
        ``allowed`` itself are the operator's word). Raises StorageFailed."""
        try:
            top = cls(os.open(allowed, LOOK | os.O_DIRECTORY))
        except OSError as error:
            raise failed(error, allowed) from error
        try:
            return cls(top.find(b"/" + os.path.relpath(path, allowed), LOOK | os.O_DIRECTORY))
        except OSError as error:
            raise failed(error, path) from error
        finally:
            top.close()

    def find(self, path: bytes, flags: int) -> int:
        """A new descriptor of ``path`` (absolute below the root, clean), opened with ``flags``, never made.
        Raises OSError; EXDEV: it leads out."""
        below = path.lstrip(b"/") or b"."
        if self.kernel:
            try:
                return _openat2(self.fd, below, flags | os.O_CLOEXEC, _BENEATH)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # A link with an absolute path may well lead back to a place below us.
        straight = self._straight(below)
        if self.kernel:
            return _openat2(self.fd, straight, flags | os.O_CLOEXEC, _BENEATH | _NO_SYMLINKS)
        return self._walk(straight, flags)

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """A new descriptor of the folder in which ``path`` is, and its name there. Raises OSError."""
        folder, _, name = path.rpartition(b"/")
        return self.find(folder, LOOK | os.O_DIRECTORY), name

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.fd)

    def _straight(self, below: bytes) -> bytes:
        """The same place by a path without links, as far as that is so when it is walked."""
        here = os.readlink(b"/proc/self/fd/%d" % self.fd)
        real = os.path.realpath(os.path.join(here, below), strict=True)
        if os.path.commonpath((here, real)) != here:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return os.path.relpath(real, here)

    def _walk(self, straight: bytes, flags: int) -> int:
        *folders, last = straight.split(b"/")
        at = os.dup(self.fd)
        for name in folders:
            try:
                inner = os.open(name, LOOK | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            finally:
                os.close(at)
            at = inner
        try:
            # O_PATH would open a link itself, where one stands now: with O_NOFOLLOW it has to be looked at.
            found = os.open(last, flags | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)
        if flags & os.O_PATH and _is_link(found):
            os.close(found)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return found


def _is_link(fd: int) -> bool:
    return (os.fstat(fd).st_mode & 0o170000) == 0o120000
