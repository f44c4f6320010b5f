"""Containers on the node's Docker Engine. Conforms to ``runtimes.base.Runtime``.

Names: container gantry-<installation>-<run>-<attempt>, control folder <node>/containers/<run>-<attempt>,
scratch <scratch>/c<run>-<attempt>/sandbox. The engine's word is taken from inspect only: events, ends of log
streams and broken connections merely say when to ask. What a request did that got no answer is asked, too,
before anything is done again. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from django.conf import settings

from workers import fetch
from workers.crashpoints import step
from workers.docker_options import BadParameter
from workers.errors import EngineError
from workers.leases import ClaimedRun
from workers.logs.capture import SpoolReader
from workers.references import Credentials
from workers.runtimes import container_config, exec_targets, images
from workers.runtimes.base import Facts, Output, PrepareFailed, Presence, Result
from workers.runtimes.container_config import NOFILE_MOST, Image, Place
from workers.runtimes.container_events import Events
from workers.runtimes.container_faults import refused_start
from workers.runtimes.container_guard import GuardKeeper
from workers.runtimes.container_output import CutError, Follower, LogStream
from workers.runtimes.container_track import Track
from workers.runtimes.engine import Engine, EngineAway, EngineRefused
from workers.runtimes.folders import make_removable, scratch_root
from workers.runtimes.networks import Networks
from workers.specs import ContainerSpec, NewerSpecError
from workers.states import Reason

log = structlog.get_logger(__name__)

LABEL: Final = "gantry."
_UPGRADE_S: Final = 30.0
#: Between two questions to an engine that does not answer, or that has not yet made up its mind.
_AGAIN_S: Final = 1.0
#: How long the end of a log stream is waited for after the container's end.
_LOG_END_S: Final = 5.0
#: How long the rest of its output is tried to be stored after the container's end.
_SPOOL_S: Final = 10.0
#: How long a start without an answer is settled before it is left to the watcher.
_SETTLE_S: Final = 10.0
_CREATE_TRIES: Final = 3


class ContainerRuntime:
    """The container runtime of one node."""

    kind = "container"
    noun = "Container"

    def __init__(
        self,
        node_dir: Path,
        engine: Engine,
        installation: str,
        node_name: str,
        clear: Callable[[ClaimedRun], Credentials | None] = lambda run: None,
    ) -> None:
        self._engine = engine
        #: Asked before a run is prepared: raises PrepareFailed, or says what its image's registry is shown.
        self._clear = clear
        self._networks = Networks(engine)
        self._installation = installation
        self._node_name = node_name
        self._control = node_dir / "containers"
        self._control.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._scratch = scratch_root(node_dir)
        self._ours = {f"{LABEL}installation": installation, f"{LABEL}node": node_name}
        self._tracks: dict[tuple[int, int], Track] = {}
        self._by_name: dict[str, Track] = {}
        self._lock = threading.Lock()
        self._follower = Follower()
        self._events = Events(engine, self._ours, self._wake, self._clean_again)
        self._uncleaned: set[tuple[int, int]] = set()
        self._guard = GuardKeeper(node_dir / "guard", engine, self._control, installation, node_name)
        self._kill_after = float("inf")

    def swarm_node_id(self) -> str:
        """The Swarm's name for this engine; empty where there is no Swarm or no answer."""
        return exec_targets.swarm_node_id(self._engine)

    # --- names ---------------------------------------------------------------------------------------

    def container_name(self, run_id: int, attempt: int) -> str:
        """The name that an attempt's container has, also after the death of whoever made it."""
        return f"gantry-{self._installation}-{run_id}-{attempt}"

    def _scratch_of(self, run_id: int, attempt: int) -> Path:
        return self._scratch / f"c{run_id}-{attempt}"

    def _track(self, run: ClaimedRun) -> Track:
        key = (run.lease.run_id, run.lease.attempt)
        with self._lock:
            track = self._tracks.get(key)
            if track is None:
                name = self.container_name(*key)
                track = Track(name, self._control / f"{key[0]}-{key[1]}", run.spec)
                self._tracks[key] = self._by_name[name] = track
        self._events.start()
        return track

    def _forget(self, run_id: int, attempt: int) -> None:
        with self._lock:
            track = self._tracks.pop((run_id, attempt), None)
            if track is not None:
                self._by_name.pop(track.name, None)
                self._events.out_of_memory.discard(track.name)

    def _wake(self, name: str) -> None:
        with self._lock:
            tracks = list(self._tracks.values()) if not name else [self._by_name.get(name)]
        for track in tracks:
            if track is not None:
                track.wake()

    # --- before the start ----------------------------------------------------------------------------

    def presence(self, run: ClaimedRun) -> Presence:
        track = self._track(run)
        try:
            found = self._engine.inspect(track.name, timeout_s=10.0)
        except (EngineAway, EngineRefused):
            return Presence.UNKNOWN
        if found is None:
            if track.launched:
                track.wake()  # if somebody watches it, it is closed as lost
                return Presence.LOST
            return Presence.PREPARED if track.folder.exists() else Presence.ABSENT
        track.adopt(found)
        status = found["State"]["Status"]
        if status == "created":
            return Presence.PREPARED
        return Presence.RUNNING if status in ("running", "paused", "restarting") else Presence.EXITED

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec, track = _spec(run), self._track(run)
        credentials = self._clear(run)
        scratch = self._scratch_of(run.lease.run_id, run.lease.attempt)
        try:
            track.folder.mkdir(mode=0o700, exist_ok=True)
            scratch.mkdir(mode=0o700, exist_ok=True)
            sandbox = scratch / "sandbox"
            # Whoever the image's user is may write here; nobody else on this machine gets past its parent.
            sandbox.mkdir(exist_ok=True)
            sandbox.chmod(0o777)
            track.image = images.ensure(
                self._engine,
                spec.image,
                pull="always" if spec.force_pull else "missing",
                credentials=credentials,
                tell=tell,
                cancelled=cancelled,
                deadline_s=settings.GANTRY_PULL_TIMEOUT_S,
            )
            track.note(track.image.note)
            if spec.uris and not cancelled():
                tell(f"Fetching {len(spec.uris)} files")
                fetch.fetch_uris(spec.uris, sandbox, cancelled)
        except EngineError as error:
            raise PrepareFailed(Reason.INPUT, error.message) from error
        except (EngineAway, EngineRefused) as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"scratch folder: {error}", ours=True) from error

    # --- the start -----------------------------------------------------------------------------------

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec, track = _spec(run), self._track(run)
        fresh = False
        if track.image is None:
            self._adopt_or_give_back(track)
        else:
            try:
                body = container_config.create_body(spec, track.image, self._place(run, spec, track.image))
            except BadParameter as error:
                raise PrepareFailed(Reason.CREATE, str(error)) from error
            fresh = self._create(track, body)
        self._may_start(track, as_of)
        if fresh:
            self._attach(track)
        try:
            self._guard.ensure()
            first = track.mark_launched()
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"control folder: {error}", ours=True) from error
        if not first:
            time.sleep(_AGAIN_S)  # whoever asked for it before may have asked just now
        self._launch(track, fresh=fresh and first)
        if spec.ports:
            self._tell_ports(track, spec)

    def _adopt_or_give_back(self, track: Track) -> None:
        try:
            if self._adopted(track):
                return
        except (EngineAway, EngineRefused) as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        raise PrepareFailed(Reason.RUNTIME, "it was not prepared", ours=True)

    def _place(self, run: ClaimedRun, spec: ContainerSpec, image: Image) -> Place:
        labels = {
            **self._ours,
            f"{LABEL}run": str(run.lease.run_id),
            f"{LABEL}attempt": str(run.lease.attempt),
            f"{LABEL}tenant": run.tenant,
            f"{LABEL}fence": "no" if run.never_lost else "yes",
            f"{LABEL}image": image.digest,
            f"{LABEL}note": image.note,
        }
        sandbox = self._scratch_of(run.lease.run_id, run.lease.attempt) / "sandbox"
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return Place(
            labels,
            str(sandbox),
            settings.GANTRY_CONTAINER_USER,
            bridge=self._networks.bridge() if spec.network == "BRIDGE" else "",
            nofile=hard if hard != resource.RLIM_INFINITY else NOFILE_MOST,
        )

    def _create(self, track: Track, body: dict[str, Any]) -> bool:
        """Create the container, or adopt the one of its name (False). Raises PrepareFailed."""
        problem = ""
        for tries_left in reversed(range(_CREATE_TRIES)):
            try:
                self._engine.ask("POST", "/containers/create", query={"name": track.name}, body=body)
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
                if self._adopted(track):
                    return False
            if tries_left:
                time.sleep(0.2)
        raise PrepareFailed(Reason.RUNTIME, problem, ours=True)

    def _adopted(self, track: Track) -> bool:
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
            raise PrepareFailed(Reason.RUNTIME, message, ours=True, wait_s=_UPGRADE_S)

    def _may_start(self, track: Track, as_of: float) -> None:
        if track.stop_request() is not None:
            raise PrepareFailed(Reason.RUNTIME, "it was stopped before it started", ours=True)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - as_of
        if as_of and age > self._kill_after:
            raise PrepareFailed(
                Reason.RUNTIME,
                f"the worker's last renewal is {age:.1f} s old, the limit is {self._kill_after:.1f} s",
                ours=True,
            )

    def _launch(self, track: Track, *, fresh: bool) -> None:
        """Start a container that was created and never started. Raises PrepareFailed.

        The engine would start one that has ended once more: unless this worker made it a moment ago
        (``fresh``), it is looked at right before every try. Returns without knowing when the engine falls
        silent: what then becomes of it the watcher finds out.
        """
        deadline = time.monotonic() + _SETTLE_S
        problem: Exception | None = None
        while fresh or self._is_unstarted(track, problem):
            fresh = False
            try:
                self._engine.ask("POST", f"/containers/{track.name}/start")
                break
            except (EngineAway, EngineRefused) as error:
                problem = error
            if time.monotonic() > deadline:
                log.warning("container.unsettled", container=track.name, error=str(problem))
                break
            time.sleep(_AGAIN_S)
        if track.stop_request() is not None:
            self._enforce(track)
        if not track.spool.open:
            self._follow(track)
        if problem is not None:
            track.wake()

    def _is_unstarted(self, track: Track, problem: Exception | None) -> bool:
        """May it be started (again)? Raises PrepareFailed when it never will be, or does not exist."""
        deadline = time.monotonic() + _SETTLE_S
        found: dict[str, Any] | None = {}
        while not found:
            try:
                found = self._engine.inspect(track.name, timeout_s=5.0)
                break
            except (EngineAway, EngineRefused) as error:
                if time.monotonic() > deadline:
                    log.warning("container.unsettled", container=track.name, error=str(error))
                    return False
                time.sleep(_AGAIN_S)
        if found is None:
            raise PrepareFailed(Reason.RUNTIME, "its container was removed before it started", ours=True)
        if found["State"]["Status"] == "created" and isinstance(problem, EngineRefused):
            failure = refused_start(problem, found["State"])
            if failure.reason is Reason.RUNTIME and not failure.ours:
                # The engine died in the middle of a start: it may have run, and nobody will ever know how.
                track.result = Result(lost=True)
                return False
            raise failure from problem
        return bool(found["State"]["Status"] == "created")

    def _tell_ports(self, track: Track, spec: ContainerSpec) -> None:
        with contextlib.suppress(EngineAway, EngineRefused):
            if found := self._engine.inspect(track.name):
                track.note(container_config.published(spec, found))

    # --- while it runs -------------------------------------------------------------------------------

    def _attach(self, track: Track) -> None:
        """Before the start: hear every byte as it is written. What goes wrong here is mended by the log."""
        stream = LogStream(track.spool.take, attached=True)
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
        try:
            while stream.in_head:
                data = channel.recv(4096)
                if not data:
                    raise CutError("the stream was cut")
                stream.feed(data)
        except (OSError, CutError) as error:
            log.info("container.not_attached", container=track.name, error=str(error))
            channel.close()
            track.spool.unlock()
            return
        # A live stream that ends says nothing about why: only where nothing between us and the engine can cut
        # it, and the engine was there all the time, it is believed.
        track.generation = generation if self._events.connected and self._engine.address.path else -1
        self._follower.follow(channel, track.spool, stream, track.wake)

    def _follow(self, track: Track) -> None:
        """Go on with the engine's log, unless a stream is open; a failure is mended by the watcher."""
        if track.spool.open or track.output_complete:
            return
        generation = self._events.generation
        track.followed_at = time.monotonic()
        try:
            if not track.spool.lock():
                track.look_again(_AGAIN_S)
                return
            query = {**track.spool.query(), "follow": True}
            channel = self._engine.raw("GET", f"/containers/{track.name}/logs", query)
        except (EngineAway, EngineRefused, OSError) as error:
            log.info("container.no_log_yet", container=track.name, error=str(error))
            track.spool.unlock()
            track.look_again(_AGAIN_S)
            return
        track.generation = generation if self._events.connected else -1
        self._follower.follow(channel, track.spool, LogStream(track.spool.take), track.wake)

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        track = self._track(run)
        deadline = time.monotonic() + timeout_s
        while track.result is None:
            if track.due():
                track.result = self._look(track)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            track.sleep(left)
        return track.result

    def _look(self, track: Track) -> Result | None:
        """Ask the engine, and do what its answer asks for."""
        if track.stop_request() is not None:
            self._enforce(track)
        try:
            found = self._engine.inspect(track.name, timeout_s=10.0)
        except (EngineAway, EngineRefused):
            track.look_again(_AGAIN_S)
            return None
        if found is None:
            return Result(lost=True)
        state = found["State"]
        if state["Status"] == "created":
            return self._start_again(track)
        if state["Status"] in ("running", "paused", "restarting"):
            if not track.spool.open and time.monotonic() - track.followed_at > _AGAIN_S:
                self._follow(track)
            elif not track.spool.open:
                track.look_again(_AGAIN_S)
            return None
        if not self._output_taken(track):
            return None
        return self._result(track, state)

    def _start_again(self, track: Track) -> Result | None:
        """A start whose answer never came was not carried out."""
        request = track.stop_request()
        if request is not None:
            return Result(killed=request.why)
        try:
            self._launch(track, fresh=False)
        except PrepareFailed as failure:
            if failure.ours:
                track.look_again(_AGAIN_S)
                return None
            return Result(error=failure.message)
        return track.result

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
        except EngineRefused as error:
            log.warning("container.no_log", container=track.name, error=str(error))
            taken = error.status < 500
        finally:
            spool.unlock()
        track.output_complete = taken
        if not taken:
            track.look_again(_AGAIN_S)
        return taken

    def _take_rest(self, track: Track) -> bool:
        """Read what the engine's log has beyond what was taken. Raises EngineAway, CutError, OSError."""
        stream = LogStream(track.spool.take)
        stream.plain()
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
            ran_s=container_config.ran_s(state),
        )

    # --- stopping ------------------------------------------------------------------------------------

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        """Written down first: the watcher carries it out at once, and whoever adopts the container later."""
        track = self._track(run)
        track.request_stop(why, grace_s)
        track.wake()

    def _enforce(self, track: Track) -> None:
        """TERM once, after the grace period KILL until it is dead."""
        request = track.stop_request()
        if request is None:
            return
        left = request.deadline - time.clock_gettime(time.CLOCK_BOOTTIME)
        signal = "KILL" if left <= 0 else "" if request.sent else "TERM"
        track.look_again(left if left > 0 else _AGAIN_S)
        if not signal:
            return
        try:
            self._engine.ask(
                "POST", f"/containers/{track.name}/kill", query={"signal": signal}, timeout_s=10.0
            )
        except EngineRefused as error:
            if error.status >= 500:
                log.warning("container.not_signalled", container=track.name, error=str(error))
            return
        except EngineAway as error:
            log.warning("container.not_signalled", container=track.name, error=str(error))
            track.look_again(_AGAIN_S)
            return
        track.mark_sent()

    # --- the rest ------------------------------------------------------------------------------------

    def facts(self, run: ClaimedRun) -> Facts:
        track = self._track(run)
        return Facts({"image_digest": track.digest} if track.digest else {}, track.told)

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output:
        track = self._track(run)
        track.folder.mkdir(mode=0o700, exist_ok=True)
        track.spool.make_up(shipped)
        return SpoolReader(
            track.spool.path(1), track.spool.path(2), shipped, track.spool.head, track.spool.tail
        )

    def cleanup(self, run_id: int, attempt: int) -> None:
        name = self.container_name(run_id, attempt)
        problem = self._remove(name)
        if problem:
            # The folders stay: they tell the search for orphans that something may be left.
            log.warning("container.not_removed", container=name, error=problem)
            self._uncleaned.add((run_id, attempt))
            return
        shutil.rmtree(self._scratch_of(run_id, attempt), onerror=make_removable)
        step("runner.during_cleanup")
        self._forget(run_id, attempt)
        shutil.rmtree(self._control / f"{run_id}-{attempt}", onerror=make_removable)
        self._uncleaned.discard((run_id, attempt))

    def _remove(self, name: str) -> str:
        """Remove a container and its anonymous volumes; why it is still there, empty when it is gone."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            try:
                self._engine.ask("DELETE", f"/containers/{name}", query={"force": True, "v": True})
                return ""
            except EngineRefused as error:
                if error.status == 404:
                    return ""
                # 409: somebody is removing it at this moment
                if error.status != 409 or time.monotonic() > deadline:
                    return str(error)
            except EngineAway as error:
                return str(error)
            time.sleep(0.2)

    def _clean_again(self) -> None:
        """Remove what could not be removed while the engine was away."""
        for run_id, attempt in list(self._uncleaned):
            self.cleanup(run_id, attempt)

    def attempts(self) -> list[tuple[int, int]]:
        names: set[str] = set()
        for folder, prefix in ((self._scratch, "c"), (self._control, "")):
            with contextlib.suppress(FileNotFoundError):
                names.update(
                    entry.name.removeprefix(prefix)
                    for entry in folder.iterdir()
                    if entry.name.startswith(prefix)
                )
        try:
            there = self._engine.ask(
                "GET",
                "/containers/json",
                query={
                    "all": True,
                    "filters": {"label": [f"{name}={value}" for name, value in self._ours.items()]},
                },
            )
        except (EngineAway, EngineRefused) as error:
            log.warning("container.not_listed", error=str(error))
            there = []
        for item in there:
            labels = item.get("Labels") or {}
            names.add(f"{labels.get(f'{LABEL}run', '')}-{labels.get(f'{LABEL}attempt', '')}")
        found = [name.partition("-")[::2] for name in names]
        return sorted(
            (int(run_id), int(attempt)) for run_id, attempt in found if run_id.isdigit() and attempt.isdigit()
        )

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        name = self.container_name(run_id, attempt)
        with contextlib.suppress(EngineAway, EngineRefused):
            self._engine.ask("POST", f"/containers/{name}/kill", query={"signal": "KILL"}, timeout_s=10.0)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._kill_after = kill_after_s
        try:
            self._guard.renew(as_of, kill_after_s, lost_after_s)
        except OSError as error:
            log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")

    def trouble(self) -> str:
        self._events.start()
        free = shutil.disk_usage(self._scratch).free // (1024 * 1024)
        if free < settings.GANTRY_MIN_FREE_MB:
            return f"only {free} MiB free in {self._scratch}, it needs {settings.GANTRY_MIN_FREE_MB}"
        self._networks.keep()
        return self._events.trouble or self._networks.trouble


def _spec(run: ClaimedRun) -> ContainerSpec:
    try:
        return ContainerSpec.from_json(run.spec)
    except NewerSpecError as error:
        raise PrepareFailed(Reason.RUNTIME, str(error), ours=True, wait_s=_UPGRADE_S) from error
    except (ValueError, TypeError) as error:
        raise PrepareFailed(Reason.CREATE, str(error)) from error
