"""Uids for runs, one each, so that no two runs of a machine share one and reuse is far apart.

Standard library only; used as root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from . import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 60_000
_BLOCK = 64  # uids taken from the counter at a time
_SHARED_FILE = (
    "/run/gantry.uids"  # else `uids` in the control folder: then each node needs its own --uid-base
)


class Uids:
    """Hands out uids, one per run, so that reuse is far apart.

    The counter and the locks are shared by every launcher of the machine: two nodes on one machine must not
    give one uid to two runs. A shim locks the byte of its uid for as long as it lives. Each launcher also
    keeps the counter in its own folder, since the shared file does not survive a restart of the machine.
    """

    def __init__(self, control_dir: str, base: int) -> None:
        self.base = base
        self._own = os.path.join(control_dir, "uid_counter")
        self._path, self._file = self._open(control_dir)
        self._next = self._end = 0
        self._catch_up()

    @staticmethod
    def _open(control_dir: str) -> tuple[str, int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            return _SHARED_FILE, os.open(_SHARED_FILE, flags, 0o600)
        path = os.path.join(control_dir, "uids")
        return path, os.open(path, flags, 0o600)

    def claim(self) -> tuple[int, int]:
        """A uid and the descriptor that locks it: as long as any process keeps it open. Raises OSError."""
        if self._next >= self._end:
            with self._counter():
                self._next = self._read()
                self._end = self._next + _BLOCK
                self._write(self._end)
            control.write_bytes(self._own, str(self._end).encode())
        for _ in range(COUNT):
            uid = self.base + self._next % COUNT
            self._next += 1
            lock = self._lock(uid)
            if lock is not None:
                return uid, lock
        raise OSError(f"all {COUNT} uids from {self.base} are in use")

    def hold(self, uid: int) -> int | None:
        """The descriptor that locks this uid; None when it is not ours to give, or a run holds it."""
        return self._lock(uid) if self.base <= uid < self.base + COUNT else None

    def _lock(self, uid: int) -> int | None:
        # A lock of the open file, not of the process: it goes to the shim with the descriptor.
        lock = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            byte = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, uid, 1, 0)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, byte)
        except (BlockingIOError, PermissionError):
            os.close(lock)
            return None
        return lock

    def _catch_up(self) -> None:
        own = 0
        with contextlib.suppress(OSError, ValueError), open(self._own) as file:
            own = int(file.read())
        with self._counter():
            shared = self._read()
            if shared == 0 and own == 0:
                self._write(1 + int.from_bytes(os.urandom(2)) % COUNT)
            elif shared == 0 or 0 < (own - shared) % COUNT < COUNT // 2:
                self._write(own)

    @contextlib.contextmanager
    def _counter(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _read(self) -> int:
        try:
            return int(os.pread(self._file, 20, 0))
        except ValueError:
            return 0

    def _write(self, value: int) -> None:
        os.pwrite(self._file, b"%-20d" % value, 0)
