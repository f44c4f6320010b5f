"""What a run may use so much of and no more, counted by looking: bounded work, whatever a run does.

A cheap guess at each look says whether the run can have come near its limit at all; only then, and once in a
while, it is counted. Counting goes on in slices, and takes a small part of one CPU. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time

from . import isolation, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = 1.0  # seconds between looks at what is far from its limit
BUSY = 0.1  # and at what is near it
_SLICE = 0.02  # seconds of counting at a time
_REST = 19  # times as long it rests afterwards: 5 % of a CPU
_REST_OVER = 4  # and when it may be over its limit already: 20 %
_ANYWAY = 60.0  # seconds until it is counted whatever the guess says: others may have let go as much


class Watched:
    """One thing of one run. A subclass says how it is guessed and counted, both in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.interval = BUSY
        self.found = 0  # what the last count said
        self._count: Iterator[int] | None = None
        self._guess = 0
        self._again = self._anyway = 0.0
        self._spent = 0.0

    def guess(self) -> int:
        """No less than what is used now, and cheap; about right after every count."""
        raise NotImplementedError

    def count(self) -> Iterator[int]:
        """The sum so far, again and again; the last one is the truth."""
        raise NotImplementedError

    def look(self) -> bool:
        """True when more is used than the limit allows: `found` is how much."""
        now = time.monotonic()
        if self._count is None:
            self._guess = self.guess() if self._anyway else 0
            near = self._guess > self.limit // 2
            if now < self._anyway and not (near and now >= self._again):
                self.interval = BUSY if near else min(QUIET, self.interval * 2)
                return False
            self._count, self._spent = self.count(), 0.0
        rest = _REST_OVER if self._guess > self.limit else _REST
        for found in self._count:
            self.found = found
            if self.found > self.limit:
                return True
            if time.monotonic() - now > _SLICE:
                self._spent += _SLICE
                self.interval = _SLICE * rest
                return False
        self._count = None
        now, began = time.monotonic(), now
        self._again = now + (self._spent + now - began) * rest
        self._anyway = now + _ANYWAY
        self.interval = BUSY
        return False


def members(mode: str) -> list[int]:
    """The processes of the run whose shim this is, without the shim."""
    if mode == isolation.NAMESPACES:
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and entry != "1"]
    return list(processes.descendants(os.getpid()))


def held(process: int, device: int) -> Iterator[tuple[int, int, int]]:
    """(inode, bytes, names) of each file of this device that a process has open; nothing where unreadable."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as files:
        for file in files:
            with contextlib.suppress(OSError):
                status = os.stat(file.path)
                if status.st_dev == device:
                    yield status.st_ino, status.st_blocks * 512, status.st_nlink


@contextlib.contextmanager
def acting_as(uid: int | None) -> Iterator[None]:
    """Read as the run's user, what root without every capability may not. Its real user stays root, so
    that the run cannot kill this process meanwhile. None: as we are."""
    if uid is None:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
