"""Two threads of a node's execs: one asks for output, one whether the engine answers.

Must not import Django.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec.track import ExecTrack

logger = logging.getLogger(__name__)

_PING_EVERY_S: Final = 2.0
_PING_PATIENCE_S: Final = 3.0


class Pump:
    """Keeps the conversation with every wrapper going, whoever watches."""

    def __init__(self, tracks: Callable[[], list[ExecTrack]]) -> None:
        self._tracks = tracks
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def news(self) -> None:
        """Look now."""
        self._news.set()

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="exec-pump", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wait = 60.0
        while True:
            self._news.wait(max(wait, 0.002))
            self._news.clear()
            wait = 60.0
            for track in self._tracks():
                try:
                    wait = min(wait, track.pump())
                except Exception:
                    logger.exception("asking for the output of %s failed", track.name)
                    wait = min(wait, 1.0)


class Pulse:
    """Does the engine answer? ``trouble`` says why not; ``chore`` runs every few seconds while it does."""

    def __init__(self, engine: Engine, back: Callable[[], None], chore: Callable[[], None]) -> None:
        self._engine = engine
        self._back = back
        self._chore = chore
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
            if not self.trouble:
                try:
                    self._chore()
                except Exception:
                    logger.exception("cleaning up after the engine was away failed")
