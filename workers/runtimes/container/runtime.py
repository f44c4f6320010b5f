"""Containers on the node's Docker Engine. Conforms to ``runtimes.base.Runtime``.

Names: container gantry-<installation>-<run>-<attempt>, control folder <node>/containers/<run>-<attempt>,
scratch <scratch>/c<run>-<attempt>/sandbox. The engine's word is taken from inspect only: events, ends of log
streams and broken connections merely say when to ask. What a request did that got no answer is asked, too,
before anything is done again. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from django.conf import settings

from workers.launcher import strays
from workers.logs.capture import SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes.base import Facts, Output, Places, PrepareFailed, Presence, Result
from workers.runtimes.container.config import NOFILE_MOST, Place, create_body, published
from workers.runtimes.container.events import Events
from workers.runtimes.container.guard import GuardKeeper
from workers.runtimes.container.remains import kill, listed, remove
from workers.runtimes.container.start import LABEL, Starter
from workers.runtimes.container.track import Track
from workers.runtimes.container.watch import AGAIN_S, Watcher
from workers.runtimes.engine import images, targets
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.engine.image import Image
from workers.runtimes.engine.networks import Networks
from workers.runtimes.folders import remove_tree, runs_root, scratch_root
from workers.runtimes.rules import CAPS, attempts_named, read_spec, space_trouble
from workers.runtimes.staging import fetch_all
from workers.vocabulary.crashpoints import step
from workers.vocabulary.docker_options import BadParameter
from workers.vocabulary.errors import EngineError
from workers.vocabulary.leases import ClaimedRun
from workers.vocabulary.references import Way
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)


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
        clear: Callable[[ClaimedRun], Way] = lambda run: Way(),
    ) -> None:
        self._engine = engine
        #: Asked before a run is prepared: raises PrepareFailed, or says how its image may be pulled.
        self._clear = clear
        self._networks = Networks(engine)
        self._installation = installation
        self._node_name = node_name
        self._control = runs_root(node_dir / "containers")
        self._scratch = scratch_root(node_dir)
        self._ours = {f"{LABEL}installation": installation, f"{LABEL}node": node_name}
        self._tracks: dict[tuple[int, int], Track] = {}
        self._by_name: dict[str, Track] = {}
        self._lock = threading.Lock()
        self._events = Events(engine, self._ours, self._wake, self._clean_again)
        self._watcher = Watcher(engine, self._events)
        self._starter = Starter(engine, self._watcher, self._ours)
        self._uncleaned: set[tuple[int, int]] = set()
        self._guard = GuardKeeper(node_dir / "guard", engine, self._control, installation, node_name)
        self._kill_after = float("inf")

    def engine_names(self) -> tuple[str, str]:
        """The engine's own id, and what its Swarm calls it; empty where there is none, or no answer."""
        return targets.engine_names(self._engine)

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
            # Its engine may have died while it started it, and forgotten that it runs.
            return Presence.RUNNING if track.launched and strays.alive(track.identity) else Presence.PREPARED
        return Presence.RUNNING if status in ("running", "paused", "restarting") else Presence.EXITED

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec, track = read_spec(ContainerSpec, run), self._track(run)
        way = self._clear(run)
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
                credentials=way.credentials,
                opening=way.opening,
                tell=tell,
                cancelled=cancelled,
                deadline_s=settings.GANTRY_PULL_TIMEOUT_S,
            )
            track.note(track.image.note)
        except EngineError as error:
            raise PrepareFailed(Reason.INPUT, error.message) from error
        except (EngineAway, EngineRefused) as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"scratch folder: {error}", ours=True) from error
        if not cancelled():
            fetch_all(spec, run, self.places(run), cancelled, tell)

    # --- the start -----------------------------------------------------------------------------------

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec, track = read_spec(ContainerSpec, run), self._track(run)
        fresh = False
        if track.image is None:
            self._adopt_or_give_back(track)
        else:
            try:
                body = create_body(spec, track.image, self._place(run, spec, track.image))
            except BadParameter as error:
                raise PrepareFailed(Reason.CREATE, str(error)) from error
            fresh = self._starter.create(track, body)
        self._may_start(track, as_of)
        if fresh:
            self._watcher.attach(track)
        try:
            self._guard.ensure()
            first = track.mark_launched()
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"control folder: {error}", ours=True) from error
        if not first:
            time.sleep(AGAIN_S)  # whoever asked for it before may have asked just now
        self._starter.launch(track, fresh=fresh and first, asked=not first)
        if spec.ports:
            self._tell_ports(track, spec)

    def _adopt_or_give_back(self, track: Track) -> None:
        try:
            if self._starter.adopted(track):
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

    def _tell_ports(self, track: Track, spec: ContainerSpec) -> None:
        with contextlib.suppress(EngineAway, EngineRefused):
            if found := self._engine.inspect(track.name):
                track.note(published(spec, found))

    # --- while it runs -------------------------------------------------------------------------------

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        track = self._track(run)
        deadline = time.monotonic() + timeout_s
        while track.result is None:
            if track.due():
                track.result = self._watcher.look(track, self._starter.again)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            track.sleep(left)
        return track.result

    # --- stopping ------------------------------------------------------------------------------------

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        """Written down first: the watcher carries it out at once, and whoever adopts the container later."""
        track = self._track(run)
        track.request_stop(why, grace_s)
        track.wake()

    # --- the rest ------------------------------------------------------------------------------------

    def facts(self, run: ClaimedRun) -> Facts:
        track = self._track(run)
        return Facts({"image_digest": track.digest} if track.digest else {}, track.told, track.waits)

    def output(self, run: ClaimedRun, shipped: dict[int, int]) -> Output:
        track = self._track(run)
        track.folder.mkdir(mode=0o700, exist_ok=True)
        track.spool.make_up(shipped)
        head, tail = (run.spec.get(key, default) for key, default in CAPS)
        redactor = Redactor(secret.encode() for secret in run.secrets)
        return SpoolReader(track.spool.path(1), track.spool.path(2), shipped, head, tail, redactor)

    def places(self, run: ClaimedRun) -> Places:
        track = self._track(run)
        sandbox = self._scratch_of(run.lease.run_id, run.lease.attempt) / "sandbox"
        return Places(sandbox, track.folder, {"stdout": track.spool.path(1)})

    def cleanup(self, run_id: int, attempt: int) -> None:
        name = self.container_name(run_id, attempt)
        problem = remove(self._engine, name)
        if problem:
            # The folders stay: they tell the search for orphans that something may be left.
            log.warning("container.not_removed", container=name, error=problem)
            self._uncleaned.add((run_id, attempt))
            return
        remove_tree(self._scratch_of(run_id, attempt))
        step("runner.during_cleanup")
        self._forget(run_id, attempt)
        remove_tree(self._control / f"{run_id}-{attempt}")
        self._uncleaned.discard((run_id, attempt))

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
        names.update(listed(self._engine, self._ours))
        return attempts_named(names)

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        kill(self._engine, self.container_name(run_id, attempt))

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._kill_after = kill_after_s
        try:
            self._guard.renew(as_of, kill_after_s, lost_after_s)
        except OSError as error:
            log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")

    def trouble(self) -> str:
        self._events.start()
        if full := space_trouble(self._scratch):
            return full
        self._networks.keep()
        return self._events.trouble or self._networks.trouble
