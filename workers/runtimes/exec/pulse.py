"""Does the engine of a node's execs answer?

Must not import Django.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from workers.runtimes.engine.client import Engine
from workers.runtimes.engine.pulse import PING_EVERY_S, ping


class Pulse:
    """``trouble`` says why it does not; ``back`` is called when it answers again."""

    def __init__(self, engine: Engine, back: Callable[[], None]) -> None:
        self._engine = engine
        self._back = back
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.trouble = ""

    def start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="exec-ping", daemon=True)
        self._ping()
        self._thread.start()

    def _ping(self) -> None:
        before, self.trouble = self.trouble, ping(self._engine)
        if before and not self.trouble:
            self._back()

    def _run(self) -> None:
        while True:
            time.sleep(PING_EVERY_S)
            self._ping()
