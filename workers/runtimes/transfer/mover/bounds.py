"""What bounds a batch: so many bytes per second over all threads, and the free space of its target."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from workers.storage.trees.base import StorageFailed, Tree, Trouble, shown

#: A local file so small (bytes) is read and written faster than it is handed over.
SMALL: Final = 256 * 1024
#: Seconds of silence for which bytes may be made up at once.
_BURST_S: Final = 0.5
#: Seconds for which a storage's word about its free space is good.
_SPACE_S: Final = 5.0


class Bucket:
    """Whoever has moved bytes waits until they were due. ``rate`` in bytes/s; None: nobody waits."""

    def __init__(
        self,
        rate: float | None,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = rate
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, count: int) -> None:
        """``count`` bytes were moved. Waits, half a second at a time, by ``wait``, which may raise."""
        if self.rate is None:
            return
        with self._lock:
            self._free_at = max(self._free_at, self._clock() - _BURST_S) + count / self.rate
            due = self._free_at
        while (left := due - self._clock()) > 0:
            self._wait(min(left, 0.5))


class Space:
    """Free space of a target as it was last told, less what was begun since."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._free: int | None = None
        self._asked_at = float("-inf")

    def take(self, path: bytes, size: int) -> None:
        """Before ``size`` bytes are sent. Raises StorageFailed FULL when they cannot fit."""
        if size <= 0:
            return
        with self._lock:
            short = self._free is not None and self._free < size
            if short or time.monotonic() - self._asked_at >= _SPACE_S:
                self._free = self._tree.free_space(path)
                self._asked_at = time.monotonic()
            if self._free is None:
                return
            if size > self._free:
                raise StorageFailed(
                    f"{shown(path)}: {size} bytes do not fit: the target has {self._free} bytes free",
                    Trouble.FULL,
                )
            self._free -= size
