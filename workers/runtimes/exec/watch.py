"""Watching an exec: whether it has ended, who listens to it, what it takes to go on where a dead worker was.

The listener's record ``exit`` is the truth. Must not import the database or Celery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from workers.launcher import control
from workers.runtimes.base import PrepareFailed, Result
from workers.runtimes.container.watch import hindrance
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec.kill import Killer
from workers.runtimes.exec.listening import Listening, NotHeardError
from workers.runtimes.exec.start import never_ran, never_started
from workers.runtimes.exec.track import ExecTrack

log = structlog.get_logger(__name__)

#: Between two looks at one that somebody listens to, or questions to an engine that does not answer.
AGAIN_S: Final = 1.0
#: How long after a stop the engine's word of the end is waited for.
_SILENT_S: Final = 3.0
#: What ends with its container has one of these.
_KILLED: Final = (137, 143)
#: How long a listener's first word about an exec that it takes over is waited for.
_HEAR_S: Final = 2.0


class Watcher:
    """Watches the execs of one node."""

    def __init__(self, engine: Engine, listening: Listening, killer: Killer) -> None:
        self._engine = engine
        self._listening = listening
        self._killer = killer

    def look(self, track: ExecTrack, again: Callable[[], None]) -> Result | None:
        """What became of it, None while nobody knows; ``again`` starts it. Raises OSError."""
        if track.has_ended():
            return self._over(track)
        if (request := track.stop_request()) is not None:
            self._killer.enforce(track)
            track.waits = self._hindrance(track) if request.sent else ""
            silent = control.boottime() - request.deadline > _SILENT_S
            if request.sent and silent and self._killer.signal(track, "0") == 0 and not track.has_ended():
                return Result(killed=request.why)  # nothing of it lives, and the engine does not say so
        track.look_again(AGAIN_S)
        if not track.listened and not track.has_ended() and time.monotonic() - track.asked_at >= AGAIN_S:
            track.asked_at = time.monotonic()
            return self._go_on(track, again)
        return None

    def _over(self, track: ExecTrack) -> Result | None:
        """Its end is known: a stop that was asked for before must have ended all of it."""
        end = track.end or {}
        if "never" in end:
            message = never_ran(str(track.plan.get("program")), str(end["never"])).message
            return Result(error=message.removeprefix("Command could not be started: "))
        if "lost" in end:
            return self._lost(track, str(end["lost"]))
        request, code = track.stop_request(), int(end["code"])
        if request is None and code in _KILLED:
            track.note(self._container(track))
        if request is not None and request.sent:
            self._killer.enforce(track)
            if self._killer.signal(track, "0"):
                track.look_again(0.1)
                return None
            request = track.stop_request()
        return Result(
            code=code,
            killed=request.why if request is not None and request.effective(code) else None,
            ran_s=float(end["ran_s"]),
        )

    def _lost(self, track: ExecTrack, why: str) -> Result | None:
        """Nobody will know the exit code: nothing of it may go on."""
        if self._killer.signal(track, "KILL"):
            track.look_again(0.1)
            return None
        request = track.stop_request()
        if request is not None and request.sent:
            return Result(killed=request.why)
        track.lost = self._container(track) or why
        return Result(lost=True)

    def _hindrance(self, track: ExecTrack) -> str:
        try:
            return hindrance(self._engine.inspect(track.plan["container"], timeout_s=10.0))
        except (EngineAway, EngineRefused) as error:
            return str(error)

    def _container(self, track: ExecTrack) -> str:
        """What became of its container, where that explains its end."""
        plan = track.plan
        which = f"its container {plan.get('named') or '(unnamed)'}, id {str(plan['container'])[:12]},"
        try:
            found = self._engine.inspect(plan["container"], timeout_s=10.0)
        except (EngineAway, EngineRefused):
            return ""
        if found is None:
            return f"{which} was removed"
        state = found["State"]
        if not state["Running"]:
            return f"{which} has stopped with exit code {state.get('ExitCode')}"
        return f"{which} was restarted" if plan.get("since", state["StartedAt"]) != state["StartedAt"] else ""

    def _go_on(self, track: ExecTrack, again: Callable[[], None]) -> Result | None:
        """Nobody listens to it: it never began, or who listened is dead."""
        try:
            if never_started(self._engine, track):
                return self._start_again(track, again)
            self._listening.order(track, "follow", None, _HEAR_S)
            track.wake()
        except (EngineAway, EngineRefused, NotHeardError, OSError) as error:
            log.info("exec.not_reached", attempt=track.name, error=str(error))
        return None

    def _start_again(self, track: ExecTrack, again: Callable[[], None]) -> Result | None:
        """A start whose answer never came was not carried out."""
        request = track.stop_request()
        if request is not None:
            return Result(killed=request.why)
        try:
            again()
        except PrepareFailed as failure:
            if not failure.ours:
                return Result(error=failure.message.removeprefix("Command could not be started: "))
        return None
