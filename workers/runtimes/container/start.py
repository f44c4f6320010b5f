"""Bringing a container to its start: created once under its name, started once, also over cut connections.

What a request did that got no answer is asked of the engine before anything is done again; only what inspect
calls "created" is ever started. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import structlog

from workers.runtimes.base import PrepareFailed, Result
from workers.runtimes.container.faults import refused_start
from workers.runtimes.container.track import Track
from workers.runtimes.container.watch import AGAIN_S, Watcher
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.rules import UPGRADE_S
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: What the labels of ours begin with.
LABEL: Final = "gantry."
#: How long a start without an answer is settled before it is left to the watcher.
SETTLE_S: Final = 10.0
_CREATE_TRIES: Final = 3
#: Why nobody knows whether a container ran that was being started.
_DIED: Final = "its engine died while it started it"


class Starter:
    """Creates and starts the containers of one node; ``ours`` are the labels that all of them have."""

    def __init__(self, engine: Engine, watcher: Watcher, ours: Mapping[str, str]) -> None:
        self._engine = engine
        self._watcher = watcher
        self._ours = ours

    def create(self, track: Track, body: dict[str, Any]) -> bool:
        """Create the container, or adopt the one of its name (False). Raises PrepareFailed."""
        problem = ""
        for tries_left in reversed(range(_CREATE_TRIES)):
            try:
                made = self._engine.call(lambda docker: docker.create_container_from_config(body, track.name))
                track.identity = str(made["Id"])
                track.digest = body["Labels"][f"{LABEL}image"]
                return True
            except EngineRefused as error:
                if error.status != 409 and error.status < 500:
                    raise PrepareFailed(
                        Reason.CREATE, f"Container could not be created: {error.message}"
                    ) from error
                problem = str(error)
            except EngineAway as error:
                problem = str(error)
            # There is one of this name, or nobody knows: look before anything is done again.
            with contextlib.suppress(EngineAway, EngineRefused):
                if self.adopted(track):
                    return False
            if tries_left:
                time.sleep(0.2)
        raise PrepareFailed(Reason.RUNTIME, problem, ours=True)

    def adopted(self, track: Track) -> bool:
        """Is there a container of this name already? Raises PrepareFailed, EngineAway, EngineRefused."""
        found = self._engine.inspect(track.name)
        if found is None:
            return False
        self._check_ours(track, found)
        track.adopt(found)
        return True

    def _check_ours(self, track: Track, found: dict[str, Any]) -> None:
        labels = found["Config"].get("Labels") or {}
        if any(labels.get(name) != value for name, value in self._ours.items()):
            message = f"a container named {track.name} is there and is not this node's: remove it"
            raise PrepareFailed(Reason.RUNTIME, message, ours=True, wait_s=UPGRADE_S)

    def launch(self, track: Track, *, fresh: bool, asked: bool) -> None:
        """Start a container that was created and never started. Raises PrepareFailed.

        The engine would start one that has ended once more: unless this worker made it a moment ago
        (``fresh``), it is looked at right before every try. ``asked``: it may have been started before.
        Returns without knowing when the engine falls silent: what then becomes of it the watcher finds out.
        """
        deadline = time.monotonic() + SETTLE_S
        problem: Exception | None = None
        while fresh or self._is_unstarted(track, problem, asked=asked):
            fresh = False
            try:
                self._engine.call(lambda docker: docker.start(track.name))
                break
            except EngineRefused as error:
                problem = error
            except EngineAway as error:
                problem, asked = error, asked or error.sent
            if time.monotonic() > deadline:
                log.warning("container.unsettled", container=track.name, error=str(problem))
                break
            time.sleep(AGAIN_S)
        if track.stop_request() is not None:
            self._watcher.enforce(track)
        if not track.spool.open:
            self._watcher.follow(track)
        if problem is not None:
            track.wake()

    def again(self, track: Track) -> Result | None:
        """A start whose answer never came was not carried out, or its engine has forgotten it."""
        request = track.stop_request()
        if request is not None:
            return Result(killed=request.why) if track.end_strays() else None
        try:
            self.launch(track, fresh=False, asked=True)
        except PrepareFailed as failure:
            if failure.ours:
                track.look_again(AGAIN_S)
                return None
            return Result(error=failure.message)
        return track.result

    def _is_unstarted(self, track: Track, problem: Exception | None, *, asked: bool) -> bool:
        """May it be started (again)? Raises PrepareFailed when it never will be, or does not exist."""
        deadline = time.monotonic() + SETTLE_S
        found: dict[str, Any] | None = {}
        while not found:
            try:
                found = self._engine.inspect(track.name, timeout_s=5.0)
                break
            except (EngineAway, EngineRefused) as error:
                if time.monotonic() > deadline:
                    log.warning("container.unsettled", container=track.name, error=str(error))
                    return False
                time.sleep(AGAIN_S)
        if found is None:
            if not track.end_strays():
                return False
            raise PrepareFailed(Reason.RUNTIME, "its container was removed before it started", ours=True)
        if found["State"]["Status"] == "created" and isinstance(problem, EngineRefused):
            if not track.end_strays():
                return False
            failure = refused_start(problem, found["State"])
            if failure.reason is Reason.RUNTIME and not failure.ours:
                # The engine died in the middle of a start: it may have run, and nobody will ever know how.
                track.lost, track.result = _DIED, Result(lost=True)
                return False
            raise failure from problem
        if found["State"]["Status"] != "created":
            return False
        return not asked or self._is_truly_unstarted(track)

    def _is_truly_unstarted(self, track: Track) -> bool:
        """A start was asked for and it is called created: is that so, or did its engine die meanwhile?

        An engine's memory of what happened goes with it. One that does not know any more that it made this
        container may have been killed while it started it: then it ran, or not, and nobody will ever know.
        """
        try:
            if self._is_remembered(track.identity):
                return True
        except (EngineAway, EngineRefused) as error:
            log.warning("container.unsettled", container=track.name, error=str(error))
            track.look_again(AGAIN_S)
            return False
        if track.end_strays():
            track.lost, track.result = _DIED, Result(lost=True)
        return False

    def _is_remembered(self, identity: str) -> bool:
        """Does the engine know that it created this container? Raises EngineAway, EngineRefused."""
        now = self._engine.call(lambda docker: docker.info(), timeout_s=10.0)["SystemTime"]
        query = {
            "since": 0,
            "until": f"{datetime.fromisoformat(now).timestamp():.6f}",
            "filters": {"container": [identity], "event": ["create"]},
        }
        with self._engine.stream("GET", "/events", query=query, timeout_s=10.0) as answer:
            return any(event.get("id") == identity for event in answer.lines())
