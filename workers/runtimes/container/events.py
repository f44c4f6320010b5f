"""What one node hears from its engine: one stream of events, and a ping that says whether it answers.

An event only wakes whoever waits for a container: what is true is asked of the engine. Each time the stream
is opened again everybody is woken, and a silent one is opened again every minute. No event is relied upon:
whoever waits for a container asks by itself now and then. Must not import Django.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.engine.pulse import PING_EVERY_S, ping

logger = logging.getLogger(__name__)

#: A stream without any event for this long is opened again.
_SILENT_S: Final = 60.0


class Events:
    """The listening threads of one node. ``wake(name)`` is called with "" to wake everybody;
    ``chore`` every few seconds while the engine answers."""

    def __init__(
        self,
        engine: Engine,
        labels: Mapping[str, str],
        wake: Callable[[str], None],
        chore: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._filters = {
            "type": ["container"],
            "event": ["die", "oom", "destroy"],
            "label": [f"{name}={value}" for name, value in labels.items()],
        }
        self._wake = wake
        self._chore = chore
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        #: Grows whenever the stream is opened or cut: whoever saw the same figure twice missed nothing.
        self.generation = 0
        self.connected = False
        #: Why the engine cannot be used now; empty when it answers.
        self.trouble = ""
        #: Names of containers in which the kernel killed something for want of memory.
        self.out_of_memory: set[str] = set()

    def start(self) -> None:
        """Start listening, once."""
        with self._lock:
            if self._threads:
                return
            self._threads = [
                threading.Thread(target=self._listen_forever, name="container-events", daemon=True),
                threading.Thread(target=self._ping_forever, name="container-ping", daemon=True),
            ]
        self.ping()
        for thread in self._threads:
            thread.start()

    def ping(self) -> str:
        """Ask whether the engine answers now; returns the trouble."""
        self.trouble = ping(self._engine)
        return self.trouble

    def _ping_forever(self) -> None:
        while True:
            time.sleep(PING_EVERY_S)
            before = self.trouble
            after = self.ping()
            if before and not after:
                logger.info("the engine answers again")
                self._wake("")
            if not after:
                try:
                    self._chore()
                except Exception:
                    logger.exception("cleaning up after the engine was away failed")

    def _listen_forever(self) -> None:
        while True:
            try:
                self._listen()
            except (EngineAway, EngineRefused, ValueError) as error:
                logger.debug("the stream of events ended: %s", error)
            self._changed(connected=False)
            self.ping()  # the first to know: no work should come here meanwhile
            time.sleep(0.2 if not self.trouble else 1.0)

    def _listen(self) -> None:
        with self._engine.stream(
            "GET", "/events", query={"filters": self._filters}, timeout_s=_SILENT_S
        ) as answer:
            self._changed(connected=True)
            for event in answer.lines():
                name = str(((event.get("Actor") or {}).get("Attributes") or {}).get("name", ""))
                if event.get("Action") == "oom":
                    self.out_of_memory.add(name)
                else:
                    self._wake(name)

    def _changed(self, *, connected: bool) -> None:
        self.generation += 1
        self.connected = connected
        self._wake("")
