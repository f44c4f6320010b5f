"""Ending what an exec started. The Engine has no exec kill (``launcher/execs.py``).

Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

from workers.launcher import control, execs
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec.track import ExecTrack

#: How long an orphan is killed again and again before it is left to the next search.
_SETTLE_S: Final = 10.0


class Killer:
    """Stops the execs of one node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def enforce(self, track: ExecTrack) -> None:
        """TERM once, after the grace period KILL until nothing is left."""
        request = track.stop_request()
        if request is None:
            return
        left = request.deadline - control.boottime()
        signal = "KILL" if left <= 0 else "" if request.sent else "TERM"
        track.look_again(min(left, 1.0) if left > 0 else 0.2)
        if not signal:
            return
        if self.signal(track, signal):
            track.mark_sent()
        else:
            track.look_again(0.1)  # it is about to begin, or it has ended

    def signal(self, track: ExecTrack, signal: str) -> int | None:
        """Signal all that belongs to it ("0": count only); how many there were, None when nobody can tell."""
        track.started()
        plan = {**track.plan, **track.process}
        with contextlib.suppress(EngineAway, EngineRefused):
            return execs.signal(self._call, plan, signal, track.found)
        return None

    def _call(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        with self._engine.stream(method, path, body=body, timeout_s=10.0) as answer:
            return answer.read()

    def kill(self, track: ExecTrack) -> None:
        """KILL until nothing is left, as long as the engine answers."""
        deadline = time.monotonic() + _SETTLE_S
        while self.signal(track, "KILL") and time.monotonic() < deadline:
            time.sleep(0.05)
