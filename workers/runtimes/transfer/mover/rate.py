"""So many bytes per second, over all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

#: Seconds of silence for which bytes may be made up at once.
_BURST_S: Final = 0.5


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
