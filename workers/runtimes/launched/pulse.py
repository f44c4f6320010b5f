"""Asks a launcher whether it answers, and tells it that this worker lives: in a thread of its own.

A launcher that stands still keeps its connection and answers nothing. Whoever beats for the whole node must
not wait for it. Must not import Django.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from workers.runtimes.launched.client import LauncherClient, LauncherError
from workers.runtimes.launched.records import Hello

log = structlog.get_logger(__name__)

#: How long whoever asks waits for the answer, in seconds: one that lives has told it long before.
_PATIENCE_S: Final = 2.0
#: From so many seconds without an answer on it is in trouble: longer than a busy machine takes.
_SILENT_S: Final = 5.0


class Pulse:
    """One per launcher. Safe for many threads."""

    def __init__(self, client: LauncherClient, objection: Callable[[Hello], str] = lambda hello: "") -> None:
        """``objection``: why one that answers may still start nothing; "" when it may."""
        self._client = client
        self._objection = objection
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        #: How often it was wanted, and how many of these are answered.
        self._wanted = self._answered = 0
        #: What is still to be told: (kill_after_s, lost_after_s, as_of).
        self._renewal: tuple[float, float, float] | None = None
        #: When the question was put that nobody has answered yet, by the monotonic clock.
        self._since: float | None = None
        self._trouble = ""
        self._pid = 0

    def renew(self, kill_after_s: float, lost_after_s: float, as_of: float) -> None:
        """As the client's, but never waits long: one that stands still is told as soon as it answers."""
        with self._turn:
            self._renewal = (kill_after_s, lost_after_s, as_of)
        self._ask()

    def trouble(self) -> str:
        """Why nothing can be started now, in words; empty when it can."""
        self._ask()
        return self.silence() or self._trouble

    def silence(self) -> str:
        """That it stands still, as far as is known without asking; empty when it does not."""
        with self._turn:
            silent_s = 0.0 if self._since is None else time.monotonic() - self._since
        if silent_s < _SILENT_S:
            return ""
        which = f"process {self._pid}" if self._pid else "the process that holds its lock"
        return (
            f"the launcher has not answered for {silent_s:.0f} s: continue or end {which} (another one takes "
            "over, and what runs goes on)"
        )

    def _ask(self) -> None:
        with self._turn:
            self._wanted += 1
            mine = self._wanted
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="launcher-pulse", daemon=True)
                self._thread.start()
            self._turn.notify_all()
            if self._since is None or time.monotonic() - self._since < _PATIENCE_S:
                self._turn.wait_for(lambda: self._answered >= mine, _PATIENCE_S)

    def _run(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._answered < self._wanted)
                taken, renewal, self._renewal = self._wanted, self._renewal, None
                since = self._since = time.monotonic() if self._since is None else self._since
            trouble = self._told(renewal)
            with self._turn:
                self._answered, self._trouble = taken, trouble
                if not trouble or time.monotonic() - since < _SILENT_S:  # else it is silent as before
                    self._since = None
                self._turn.notify_all()

    def _told(self, renewal: tuple[float, float, float] | None) -> str:
        try:
            hello = self._client.ensure()
            self._pid = hello.pid
            if renewal is not None:
                self._client.renew(*renewal)
        except (LauncherError, OSError) as error:
            if renewal is not None:
                log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")
            return f"the launcher does not answer: {error}"
        return self._objection(hello)
