"""Watching an exec: whether it has ended, what it takes to go on where a dead worker was.

The record ``ended`` of its control folder is the truth about a command with the wrapper; of one without, the
engine's record. Must not import the database or Celery.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from workers.runtimes.base import PrepareFailed, Result
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec.conversation import AGAIN_S, Conversation, first_words
from workers.runtimes.exec.kill import Killer
from workers.runtimes.exec.track import ExecTrack

log = structlog.get_logger(__name__)

#: A conversation in which nothing is heard for this long is begun anew.
_SILENT_S: Final = 30.0
#: How long an engine that answers may owe the process number of a command that has ended.
_PID_S: Final = 2.0


class Watcher:
    """Watches the execs of one node."""

    def __init__(self, engine: Engine, talk: Conversation, killer: Killer) -> None:
        self._engine = engine
        self._talk = talk
        self._killer = killer

    def look(self, track: ExecTrack, again: Callable[[], None]) -> Result | None:
        """What became of it, None while nobody knows; ``again`` starts it. Raises OSError."""
        if track.result is None and track.plain:
            return self._look_plain(track)
        if track.read_end():
            return self._over(track)
        if track.stop_request() is not None:
            self._killer.enforce(track)
        if track.gone:
            return self._lost(track)
        if track.connected():
            if track.asked_at is not None and time.monotonic() - track.heard_at > _SILENT_S:
                self._talk.leave(track)
            track.look_again(AGAIN_S)
            return None
        return self._go_on(track, again)

    def _over(self, track: ExecTrack) -> Result | None:
        """Its end is known: a stop that was asked for before must have ended all of it."""
        if track.lost:
            return Result(lost=True)
        request, code = track.stop_request(), track.code or 0
        if track.missing:
            program = track.plan.get("program")
            return Result(error=f"there is no program {program} in the container, or it is not executable")
        if request is not None and request.sent:
            self._killer.enforce(track)
            if self._killer.signal(track, "0"):
                track.look_again(0.1)
                return None
            request = track.stop_request()
        self._talk.learn_pid(track, patience_s=_PID_S)
        return Result(
            code=code,
            killed=request.why if request is not None and request.effective(code) else None,
            ran_s=track.ended_ran_s,
        )

    def _lost(self, track: ExecTrack) -> Result | None:
        """Nobody will know the exit code: nothing of it may go on."""
        if self._killer.signal(track, "KILL"):
            track.look_again(0.1)
            return None
        track.save_lost()
        return Result(lost=True)

    def _go_on(self, track: ExecTrack, again: Callable[[], None]) -> Result | None:
        """Nobody reads it: the worker before died, or the stream was cut. Ask in the container."""
        since = time.monotonic() - track.opened_at
        if since < AGAIN_S:
            track.look_again(AGAIN_S - since)
            return None
        track.opened_at = time.monotonic()
        try:
            found = self._engine.inspect(track.plan["container"], timeout_s=10.0)
            if found is None or not found["State"]["Running"]:
                track.note("its container is gone" if found is None else "its container stopped")
                track.save_lost()
                return Result(lost=True)
            if self._talk.never_started(track):
                return self._start_again(track, again)
            self._talk.read(track)
        except (EngineAway, EngineRefused, OSError) as error:
            log.info("exec.not_reached", attempt=track.name, error=str(error))
        track.look_again(AGAIN_S)
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
                return Result(error=failure.message)
        track.look_again(AGAIN_S)
        return None

    def _look_plain(self, track: ExecTrack) -> Result | None:
        """Without the wrapper: the engine's record of the exec is the only truth."""
        if track.read_end():
            return self._over(track)
        if track.stop_request() is not None:
            self._killer.enforce(track)
        if track.connected():
            track.look_again(AGAIN_S)
            return None
        try:
            told = self._engine.ask("GET", f"/exec/{track.plan['exec']}/json", timeout_s=10.0)
        except EngineAway:
            track.look_again(AGAIN_S)
            return None
        except EngineRefused as error:
            if error.status >= 500:
                track.look_again(AGAIN_S)
                return None
            return self._lost(track)
        if track.stream is None:
            track.note("its output after its worker's end is missing: its container has no shell")
        if told.get("Running") or told.get("ExitCode") is None:
            track.look_again(AGAIN_S / 2)
            return None
        code = int(told["ExitCode"])
        if not told.get("Pid") and code in (126, 127):
            return Result(error=first_words(track) or f"the engine says {code}")
        track.save_end(code)
        return self._over(track)
