"""Kernel calls that not every supported Python offers: prctl, unshare, setns, mount, hole punching, signals
as a file.

Standard library only. Each function raises OSError with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 1 << 19

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_FALLOC_KEEP_SIZE = 0x01
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_BLOCK = 4096

#: What fallocate says where the file system cannot do it.
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.signalfd.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(namespace: int, kind: int) -> None:
    _check(_libc.setns(namespace, kind), "setns")


def mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    if _libc.mount(source, target, kind, flags, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount on {os.fsdecode(target)}: {os.strerror(number)}")


def punch_hole(file: int, start: int, end: int) -> None:
    """Give the blocks of [start, end) back to the disk; the file keeps its size and reads zeros there."""
    _check(_libc.fallocate64(file, _FALLOC_KEEP_SIZE_PUNCH_HOLE, start, end - start), "punch a hole")


def hole_end(size: int, tail: int) -> int:
    """Where a hole may end that keeps `tail` bytes: at a block's beginning, or that block would never be
    given back by the hole that goes on there."""
    return (size - tail) // _BLOCK * _BLOCK


def reserve(file: int, start: int, count: int) -> None:
    """Take the blocks of `count` bytes from `start` on for a file that keeps its size."""
    _check(_libc.fallocate64(file, _FALLOC_KEEP_SIZE, start, count), "reserve space")


def signal_file(numbers: tuple[signal.Signals, ...]) -> int:
    """A descriptor that is ready for reading while one of these signals is pending; they must be blocked."""
    mask = sum(1 << (number - 1) for number in numbers).to_bytes(8, sys.byteorder).ljust(128, b"\0")
    file: int = _libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    _check(0 if file >= 0 else -1, "signalfd")
    return file


def become_subreaper() -> None:
    """Orphaned descendants become our children, not those of the machine's first process."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def no_new_privileges() -> None:
    """From here on no set-uid program gives anything to this process or its children."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def die_with_parent() -> None:
    """KILL when the thread that started this process ends; forks of it have to ask for themselves."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def hide_memory() -> None:
    """Other processes of this user can neither trace this one nor read its environment; exec undoes it."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")
