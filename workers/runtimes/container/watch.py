"""Watching a container: its output, whether it has ended, what it takes to stop it.

The engine's word is taken from inspect only: events, ends of log streams and broken connections merely say
when to ask. Must not import the database or Celery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from workers.launcher import strays
from workers.runtimes.base import Result
from workers.runtimes.container.config import ran_s
from workers.runtimes.container.events import Events
from workers.runtimes.container.stream import CutError, Follower, LogStream
from workers.runtimes.container.track import Track
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused

log = structlog.get_logger(__name__)

#: Why nobody knows how a container ended that is not there any more.
REMOVED: Final = "it was removed, by somebody else than Gantry"
#: Between two questions to an engine that does not answer, or that has not yet made up its mind.
AGAIN_S: Final = 1.0
#: How long the end of a log stream is waited for after the container's end.
_LOG_END_S: Final = 5.0
#: How an engine writes that something has not happened yet.
_NEVER: Final = "0001-"
#: For how long nothing of a container may live until its engine's word is not taken any more.
_GHOST_S: Final = 5.0
#: How long the rest of its output is tried to be stored after the container's end.
_SPOOL_S: Final = 10.0


def hindrance(container: Mapping[str, Any] | None) -> str:
    """What a kill of something in this container waits for; empty when for nothing."""
    if container is None or not container["State"].get("Paused"):
        return ""
    name = str(container.get("Name") or container["Id"]).lstrip("/")
    return f"its container is paused: the kill takes effect when it is unpaused (docker unpause {name})"


class Watcher:
    """Watches the containers of one node."""

    def __init__(self, engine: Engine, events: Events) -> None:
        self._engine = engine
        self._events = events
        self._follower = Follower()

    # --- output --------------------------------------------------------------------------------------

    def attach(self, track: Track) -> None:
        """Before the start: hear every byte as it is written. What goes wrong here is mended by the log."""
        generation = self._events.generation
        try:
            if not track.spool.lock():
                return
            query = {"stream": True, "stdout": True, "stderr": True}
            channel = self._engine.raw("POST", f"/containers/{track.name}/attach", query)
        except (EngineAway, EngineRefused, OSError) as error:
            log.info("container.not_attached", container=track.name, error=str(error))
            track.spool.unlock()
            return
        # A live stream that ends says nothing about why: only where nothing between us and the engine can cut
        # it, and the engine was there all the time, it is believed.
        track.generation = generation if self._events.connected and self._engine.address.path else -1
        stream = LogStream(track.spool.take, attached=True, chunked=channel.chunked)
        self._follower.follow(channel, track.spool, stream, track.wake)

    def follow(self, track: Track) -> None:
        """Go on with the engine's log, unless a stream is open; a failure is mended by the watcher."""
        if track.spool.open or track.output_complete:
            return
        track.followed_at = time.monotonic()
        try:
            if not track.spool.lock():
                track.look_again(AGAIN_S)
                return
            query = {**track.spool.query(), "follow": True}
            channel = self._engine.raw("GET", f"/containers/{track.name}/logs", query)
        except (EngineAway, EngineRefused, OSError) as error:
            log.info("container.no_log_yet", container=track.name, error=str(error))
            track.spool.unlock()
            track.look_again(AGAIN_S)
            return
        # Its end is never believed: an engine ends it at the container's end, perhaps before the last line.
        track.generation = -1
        stream = LogStream(track.spool.take, chunked=channel.chunked)
        self._follower.follow(channel, track.spool, stream, track.wake)

    # --- its end -------------------------------------------------------------------------------------

    def look(self, track: Track, start: Callable[[Track], Result | None]) -> Result | None:
        """Ask the engine, and do what its answer asks for: ``start`` what was never started."""
        if track.stop_request() is not None:
            self.enforce(track)
        try:
            found = self._engine.inspect(track.name, timeout_s=10.0)
        except (EngineAway, EngineRefused) as error:
            track.waits = str(error)
            track.look_again(AGAIN_S)
            return None
        track.waits = hindrance(found)
        if found is None:
            track.lost = REMOVED
            return Result(lost=True) if track.end_strays() else None
        state = found["State"]
        if state["Status"] == "created":
            return start(track)
        if state["Status"] in ("running", "paused", "restarting"):
            if self._is_ghost(track, state):
                request, track.lost = track.stop_request(), "its engine did not notice its end"
                return Result(lost=True) if request is None else Result(killed=request.why)
            if not track.spool.open and time.monotonic() - track.followed_at > AGAIN_S:
                self.follow(track)
            elif not track.spool.open:
                track.look_again(AGAIN_S)
            return None
        if not self._output_taken(track):
            return None
        return self._result(track, state)

    def _is_ghost(self, track: Track, state: dict[str, Any]) -> bool:
        """Does the engine call running, for good, what has ended?

        An engine that was cut off from its containerd in the middle of a start may be told of the end first,
        which it ignores, and then of the start: it calls it running without a time of its start. What was
        started in good order has one. Whether it lives is seen on this machine, or asked of containerd. Its
        output went nowhere and its exit code is gone with the engine: it is lost.
        """
        if not state.get("StartedAt", "").startswith(_NEVER):
            track.lifeless_since = None
            return False
        track.look_again(AGAIN_S)
        if strays.alive(track.identity) or not (strays.left(track.identity) or self._is_empty(track)):
            track.lifeless_since = None
            return False
        now = time.monotonic()
        if track.lifeless_since is None:
            track.lifeless_since = now
        if now - track.lifeless_since < _GHOST_S:
            return False
        log.warning("container.ghost", container=track.name, meaning="its engine did not notice its end")
        return True

    def _is_empty(self, track: Track) -> bool:
        """Does its engine's containerd know of no process in it, or of no such container?"""
        try:
            told = self._engine.ask("GET", f"/containers/{track.name}/top", timeout_s=10.0)
        except EngineRefused as error:
            return error.status == 404
        except EngineAway:
            return False
        return not told.get("Processes")

    def _output_taken(self, track: Track) -> bool:
        """After the container's end: has all of its output been read? Else looks again soon."""
        spool = track.spool
        if track.output_complete:
            return True
        if spool.open:
            if track.ending_for() < _LOG_END_S:
                track.look_again(0.2)
                return False
            self._follower.forget(spool)
        if spool.clean and track.generation == self._events.generation:
            track.output_complete = True  # the engine that recorded the end also served the stream to its end
            return True
        taken = False
        try:
            if spool.lock():
                taken = self._take_rest(track)
        except (EngineAway, CutError) as error:
            log.info("container.log_cut", container=track.name, error=str(error))
        except OSError as error:
            # No space, most likely, and what takes it may be this attempt's own: it ends, and its files go.
            taken = track.ending_for() > _SPOOL_S
            log.warning("container.no_spool", container=track.name, error=str(error), gives_up=taken)
            if taken:
                track.note(f"the end of its output is missing, the node could not store it: {error.strerror}")
                spool.give_up(f"the node could not store it ({error.strerror})")
        except EngineRefused as error:
            log.warning("container.no_log", container=track.name, error=str(error))
            taken = error.status < 500
            if taken:
                track.note(
                    f"the end of its output may be missing, the engine has no log of it: {error.message}"
                )
                spool.give_up("the engine has no log of it")
        finally:
            spool.unlock()
        track.output_complete = taken
        if not taken:
            track.look_again(AGAIN_S)
        return taken

    def _take_rest(self, track: Track) -> bool:
        """Read what the engine's log has beyond what was taken. Raises EngineAway, CutError, OSError."""
        stream = LogStream(track.spool.take)
        with self._engine.stream(
            "GET", f"/containers/{track.name}/logs", query=track.spool.query(), timeout_s=30.0
        ) as answer:
            while data := answer.read(256 * 1024):
                stream.feed(data)
        return True

    def _result(self, track: Track, state: dict[str, Any]) -> Result:
        request = track.stop_request()
        code = int(state.get("ExitCode") or 0)
        if code in (126, 127) and (words := track.spool.refusal_of_init()):
            return Result(error=words)
        return Result(
            code=code,
            killed=request.why if request is not None and request.effective(code) else None,
            oom=bool(state.get("OOMKilled")) or track.name in self._events.out_of_memory,
            ran_s=ran_s(state),
        )

    # --- stopping ------------------------------------------------------------------------------------

    def enforce(self, track: Track) -> None:
        """TERM once, after the grace period KILL until it is dead."""
        request = track.stop_request()
        if request is None:
            return
        left = request.deadline - time.clock_gettime(time.CLOCK_BOOTTIME)
        signal = "KILL" if left <= 0 else "" if request.sent else "TERM"
        track.look_again(left if left > 0 else AGAIN_S)
        if not signal:
            return
        try:
            self._engine.call(lambda docker: docker.kill(track.name, signal), timeout_s=10.0)
        except EngineRefused as error:
            if error.status >= 500:
                log.warning("container.not_signalled", container=track.name, error=str(error))
            return
        except EngineAway as error:
            log.warning("container.not_signalled", container=track.name, error=str(error))
            track.look_again(AGAIN_S)
            return
        track.mark_sent()
