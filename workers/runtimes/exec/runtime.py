"""Commands inside running containers of the node: docker exec, made killable and durable.

Names: control folder <node>/execs/<run>-<attempt>; the listener's is <node>/listener. What a job asks for is
executed as ``docker exec`` would, nothing else enters the container, but that secret arguments come by
standard input (``wrapper``). The node's listener (``workers.launcher.listener``) starts it and keeps its
output and its end; it outlives the worker. An exec is created in ``prepare`` and started once: the engine
refuses to start one twice (docs/decisions/0088). Must not import the database or Celery.
"""

from __future__ import annotations

import secrets as randomness
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from workers.launcher import control
from workers.logs.capture import SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, Output, PrepareFailed, Presence, Result
from workers.runtimes.container.guard import GuardKeeper
from workers.runtimes.engine import targets
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec.kill import Killer
from workers.runtimes.exec.listening import Listening
from workers.runtimes.exec.pulse import Pulse
from workers.runtimes.exec.start import Starter, never_started, refused
from workers.runtimes.exec.track import ExecTrack
from workers.runtimes.exec.watch import Watcher
from workers.runtimes.folders import remove_tree, runs_root
from workers.runtimes.rules import attempts_named, read_spec, space_trouble
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)


class ExecRuntime:
    """The exec runtime of one node; conforms to ``runtimes.base.Runtime`` and answers questions."""

    kind = "exec"
    noun = "Command"

    def __init__(self, node_dir: Path, engine: Engine, installation: str, node_name: str) -> None:
        self._engine = engine
        self._installation = installation
        self._control = runs_root(node_dir / "execs")
        self._tracks: dict[tuple[int, int], ExecTrack] = {}
        self._lock = threading.Lock()
        listening = Listening(node_dir / "listener", engine)
        self._killer = Killer(engine)
        self._watcher = Watcher(engine, listening, self._killer)
        self._starter = Starter(engine, listening)
        self._pulse = Pulse(engine, self._wake_all)
        self._guard = GuardKeeper(
            node_dir / "guard", engine, node_dir / "containers", installation, node_name
        )
        self._kill_after = float("inf")

    def lookups(self) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {"containers": lambda payload: targets.running(self._engine, payload)}

    def engine_names(self) -> tuple[str, str]:
        """The engine's own id, and what its Swarm calls it; empty where there is none, or no answer."""
        return targets.engine_names(self._engine)

    # --- names ---------------------------------------------------------------------------------------

    def _track(self, run: ClaimedRun) -> ExecTrack:
        return self._track_of(run.lease.run_id, run.lease.attempt, run.spec)

    def _track_of(self, run_id: int, attempt: int, spec: Mapping[str, Any]) -> ExecTrack:
        key = (run_id, attempt)
        with self._lock:
            track = self._tracks.get(key)
            if track is None:
                name = f"{run_id}-{attempt}"
                track = ExecTrack(name, self._control / name, spec)
                # A new mapping: others go through the old one.
                self._tracks = {**self._tracks, key: track}
        return track

    def _forget(self, key: tuple[int, int]) -> None:
        with self._lock:
            self._tracks = {known: track for known, track in self._tracks.items() if known != key}

    def _wake_all(self) -> None:
        for track in self._tracks.values():
            track.wake()

    # --- before the start ----------------------------------------------------------------------------

    def presence(self, run: ClaimedRun) -> Presence:
        track = self._track(run)
        if not track.folder.exists():
            return Presence.ABSENT
        if not track.launched:
            return Presence.PREPARED
        if track.has_ended():
            return Presence.EXITED
        if track.listened:
            return Presence.RUNNING
        try:
            return Presence.PREPARED if never_started(self._engine, track) else Presence.RUNNING
        except (EngineAway, EngineRefused):
            return Presence.UNKNOWN

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec, track = read_spec(ExecSpec, run), self._track(run)
        try:
            if track.launched:
                return  # start adopts it
            found = targets.find(self._engine, spec.container, spec.selectors)
            track.folder.mkdir(mode=0o700, exist_ok=True)
            track.save_plan(
                container=found["Id"],
                image=found["Image"],
                named=found["Name"],
                since=found["Since"],
                mark=f"{self._installation}-{track.name}-{randomness.token_hex(8)}",
                user=spec.user,
                privileged=spec.privileged,
                fence=not run.never_lost,
                program=spec.argv[0],
            )
            self._starter.create(track, spec, run.secrets)
        except EngineAway as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        except EngineRefused as error:
            raise refused(error.status, error.message) from error
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"control folder: {error}", ours=True) from error

    # --- the start -----------------------------------------------------------------------------------

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec, track = read_spec(ExecSpec, run), self._track(run)
        if not track.plan.get("exec"):
            raise PrepareFailed(Reason.RUNTIME, "it was not prepared", ours=True)
        if track.has_ended() or track.listened:
            return
        self._may_start(track, as_of)
        try:
            self._guard.ensure()
            first = track.mark_launched()
            if first:
                track.save_plan()  # of two workers that prepared it, this one's exec is the one
            else:
                track.plan = control.read_record(str(track.folder / "plan")) or track.plan
                if not never_started(self._engine, track):
                    track.wake()
                    return
            self._starter.launch(track, spec, run.secrets)
        except EngineAway:
            track.wake()  # what became of it the watcher finds out
        except EngineRefused as error:
            raise refused(error.status, error.message) from error
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"control folder: {error}", ours=True) from error

    def _may_start(self, track: ExecTrack, as_of: float) -> None:
        if track.stop_request() is not None and not track.launched:
            raise PrepareFailed(Reason.RUNTIME, "it was stopped before it started", ours=True)
        age = control.boottime() - as_of
        if as_of and age > self._kill_after:
            raise PrepareFailed(
                Reason.RUNTIME,
                f"the worker's last renewal is {age:.1f} s old, the limit is {self._kill_after:.1f} s",
                ours=True,
            )

    # --- while it runs -------------------------------------------------------------------------------

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        track = self._track(run)
        deadline = time.monotonic() + timeout_s
        while track.result is None:
            if track.due():
                with track.lock:
                    if track.result is None:
                        track.result = self._watcher.look(
                            track, lambda: self._starter.launch(track, read_spec(ExecSpec, run), run.secrets)
                        )
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            track.sleep(left)
        return track.result

    # --- stopping ------------------------------------------------------------------------------------

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        """Written down first: the watcher carries it out at once, and whoever adopts it later."""
        track = self._track(run)
        track.request_stop(why, grace_s)
        track.wake()

    # --- the rest ------------------------------------------------------------------------------------

    def facts(self, run: ClaimedRun) -> Facts:
        track = self._track(run)
        known = {
            "exec_id": track.plan.get("exec"),
            "container_id": track.plan.get("container"),
            "pid": track.process.get("pid"),
        }
        return Facts(
            {name: value for name, value in known.items() if value}, track.told, track.waits, track.lost
        )

    def places(self, run: ClaimedRun) -> None:
        return None

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output:
        track = self._track(run)
        track.folder.mkdir(mode=0o700, exist_ok=True)
        mask = Redactor(secret.encode() for secret in run.secrets)
        if not mask:
            track.spool.make_up(shipped)
        return SpoolReader(
            track.spool.path(1),
            track.spool.path(2),
            shipped,
            track.spool.head,
            track.spool.tail,
            mask or None,
            track.missing,
        )

    def cleanup(self, run_id: int, attempt: int) -> None:
        track = self._track_of(run_id, attempt, {})
        step("runner.during_cleanup")
        self._forget((run_id, attempt))
        remove_tree(self._control / track.name)

    def attempts(self) -> list[tuple[int, int]]:
        return attempts_named(entry.name for entry in self._control.iterdir())

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        track = self._track_of(run_id, attempt, {})
        if not track.launched or track.has_ended():
            return
        self._killer.kill(track)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._kill_after = kill_after_s
        try:
            self._guard.renew(as_of, kill_after_s, lost_after_s)
        except OSError as error:
            log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")

    def trouble(self) -> str:
        self._pulse.start()
        if full := space_trouble(self._control):
            return full
        return self._pulse.trouble
