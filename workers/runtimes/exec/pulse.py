"""Does the engine of a node's execs answer?

Must not import Django.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused

_PING_EVERY_S: Final = 2.0
_PING_PATIENCE_S: Final = 3.0


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
        before = self.trouble
        try:
            self._engine.ask("GET", "/containers/json", query={"limit": 1}, timeout_s=_PING_PATIENCE_S)
        except EngineAway as error:
            self.trouble = str(error)
        except EngineRefused as error:
            self.trouble = f"the Docker Engine at {self._engine.address.shown} has a fault: {error}"
        else:
            self.trouble = ""
            if before:
                self._back()

    def _run(self) -> None:
        while True:
            time.sleep(_PING_EVERY_S)
            self._ping()
