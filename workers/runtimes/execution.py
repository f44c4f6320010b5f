"""Commands inside running containers of the node: docker exec, made killable and durable.

Names: control folder <node>/execs/<run>-<attempt>; in the container files .<mark>.* of a writable folder. A
wrapper in the container (``exec_scripts``) keeps output and exit code there until they are stored, so that
the next worker finds them; where there is no shell the engine's own exec is all there is, and the host's view
of the processes ends it (docs/decisions/0065). An exec is created in ``prepare`` and started once: the engine
refuses to start one twice. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import secrets as randomness
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from django.conf import settings

from workers.crashpoints import step
from workers.launcher import control, execs
from workers.leases import ClaimedRun
from workers.logs.capture import SpoolReader
from workers.logs.redaction import Redactor
from workers.runtimes import exec_scripts, exec_targets
from workers.runtimes.base import Facts, Output, PrepareFailed, Presence, Result
from workers.runtimes.container_guard import GuardKeeper
from workers.runtimes.container_stream import Follower
from workers.runtimes.engine import Engine, EngineAway, EngineRefused
from workers.runtimes.exec_pump import Pulse, Pump
from workers.runtimes.exec_track import ExecTrack
from workers.runtimes.folders import make_removable
from workers.specs import ExecSpec, NewerSpecError
from workers.states import Reason

log = structlog.get_logger(__name__)

_UPGRADE_S: Final = 30.0
_AGAIN_S: Final = 1.0
#: How long the wrapper's first word is waited for, and an answer to a signal.
_HEAR_S: Final = 15.0
_SIGNAL_S: Final = 5.0
#: A conversation in which nothing is heard for this long is begun anew.
_SILENT_S: Final = 30.0
_SETTLE_S: Final = 10.0


class ExecRuntime:
    """The exec runtime of one node; conforms to ``runtimes.base.Runtime`` and answers questions."""

    kind = "exec"
    noun = "Command"

    def __init__(self, node_dir: Path, engine: Engine, installation: str, node_name: str) -> None:
        self._engine = engine
        self._installation = installation
        self._control = node_dir / "execs"
        self._control.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tracks: dict[tuple[int, int], ExecTrack] = {}
        self._lock = threading.Lock()
        self._follower = Follower()
        self._pump = Pump(lambda: list(self._tracks.values()))
        self._pulse = Pulse(engine, self._wake_all, self._clean_again)
        self._guard = GuardKeeper(
            node_dir / "guard", engine, node_dir / "containers", installation, node_name
        )
        self._uncleaned: set[tuple[int, int]] = set()
        #: Images without /bin/sh.
        self._shellless: set[str] = set()
        self._kill_after = float("inf")

    def lookups(self) -> Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        return {"containers": lambda payload: exec_targets.running(self._engine, payload)}

    def engine_names(self) -> tuple[str, str]:
        """The engine's own id, and what its Swarm calls it; empty where there is none, or no answer."""
        return exec_targets.engine_names(self._engine)

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
                track.on_news = self._pump.news
                # A new mapping: the pump goes through the old one.
                self._tracks = {**self._tracks, key: track}
        self._pump.start()
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
        if track.result is None and not track.read_end():
            try:
                if self._never_started(track):
                    return Presence.PREPARED
            except (EngineAway, EngineRefused):
                return Presence.UNKNOWN
        deadline = time.monotonic() + 5.0
        while self.wait(run, 0.05) is None and time.monotonic() < deadline:
            if track.connected() and (track.alive or not track.reading):
                break
            if track.plain:
                break
            if self._pulse.trouble:
                return Presence.UNKNOWN
        if track.result is not None:
            return Presence.LOST if track.result.lost else Presence.EXITED
        return Presence.RUNNING

    def prepare(self, run: ClaimedRun, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> None:
        spec, track = _spec(run), self._track(run)
        try:
            if track.launched:
                return  # start adopts it
            found = exec_targets.find(self._engine, spec.container, spec.selectors)
            track.folder.mkdir(mode=0o700, exist_ok=True)
            track.save_plan(
                container=found["Id"],
                image=found["Image"],
                mark=f"{self._installation}-{track.name}-{randomness.token_hex(8)}",
                user=spec.user,
                privileged=spec.privileged,
                fence=not run.never_lost,
                program=spec.argv[0],
                plain=found["Image"] in self._shellless,
            )
            self._create(track, spec, run.secrets)
        except EngineAway as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        except EngineRefused as error:
            raise _refused(error.status, error.message) from error
        except OSError as error:
            raise PrepareFailed(Reason.RUNTIME, f"control folder: {error}", ours=True) from error

    def _create(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Create the exec: executes nothing. Raises EngineAway, EngineRefused, OSError."""
        mark = track.plan["mark"]
        environment = dict(spec.env)
        if track.plain:
            environment[execs.MARK] = mark
        body = {
            "AttachStdin": not track.plain,
            "AttachStdout": True,
            "AttachStderr": True,
            "User": spec.user,
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Privileged": spec.privileged,
            # Without a shell nobody could read the command from a stream.
            "Cmd": [*spec.argv, *secrets] if track.plain else exec_scripts.wrapper(mark),
        }
        if spec.working_dir:
            body["WorkingDir"] = spec.working_dir
        made = self._engine.ask("POST", f"/containers/{track.plan['container']}/exec", body=body)
        track.save_plan(exec=made["Id"], word=f"\x1e{randomness.token_hex(16)}")

    # --- the start -----------------------------------------------------------------------------------

    def start(self, run: ClaimedRun, as_of: float) -> None:
        spec, track = _spec(run), self._track(run)
        if not track.plan.get("exec"):
            raise PrepareFailed(Reason.RUNTIME, "it was not prepared", ours=True)
        if track.result is not None or track.read_end() or track.connected():
            return
        self._may_start(track, as_of)
        try:
            self._guard.ensure()
            first = track.mark_launched()
            if first:
                track.save_plan()  # of two workers that prepared it, this one's exec is the one
            else:
                track.plan = control.read_record(str(track.folder / "plan")) or track.plan
                time.sleep(_AGAIN_S)  # whoever asked for it before may have asked just now
                if not self._never_started(track):
                    track.wake()
                    return
            self._launch(track, spec, run.secrets)
        except EngineAway:
            track.wake()  # what became of it the watcher finds out
        except EngineRefused as error:
            raise _refused(error.status, error.message) from error
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

    def _launch(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Start the exec that was created. Raises PrepareFailed, EngineAway, EngineRefused, OSError."""
        track.begun_at = control.boottime()
        try:
            introduction = (
                b"" if track.plain else exec_scripts.introduction(track.plan["word"], [*spec.argv, *secrets])
            )
            opened = self._converse(track, track.plan["exec"], introduction)
        except EngineRefused as error:
            if error.status == 409 and "paused" not in error.message and not self._never_started(track):
                return  # it was started before: the watcher goes on with it
            raise _refused(error.status, error.message) from error
        if not opened:
            return
        if track.plain:
            self._begun(track)
            return
        deadline = time.monotonic() + _HEAR_S
        while not track.heard.wait(0.05) and track.connected() and time.monotonic() < deadline:
            pass
        if track.started:
            self._begun(track)
        elif not track.connected():
            self._not_begun(track, spec, secrets)

    def _begun(self, track: ExecTrack) -> None:
        with contextlib.suppress(EngineAway, EngineRefused):
            told = self._engine.ask("GET", f"/exec/{track.plan['exec']}/json", timeout_s=5.0)
            track.engine_pid = int(told.get("Pid") or 0) or None
        track.save_told()
        self._pump.news()

    def _not_begun(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """The wrapper never spoke: no shell, or the engine says why. Raises PrepareFailed."""
        words = self._first_words(track)
        if '"/bin/sh"' in words and not track.plain:
            log.info("exec.no_shell", container=track.plan["container"], said=words)
            self._shellless.add(track.plan["image"])
            track.spool.path(1).unlink(missing_ok=True)
            track.save_plan(plain=True)
            self._create(track, spec, secrets)
            self._launch(track, spec, secrets)
            return
        if words:
            raise _refused(500, words)
        track.wake()  # nobody knows: the watcher finds out

    @staticmethod
    def _first_words(track: ExecTrack) -> str:
        with contextlib.suppress(OSError):
            said = track.spool.path(1).read_bytes()[:4096].decode(errors="replace").strip()
            if said:
                track.spool.path(1).unlink()
                return said
        return (track.stream.words if track.stream else b"").decode(errors="replace").strip()

    def _converse(
        self, track: ExecTrack, exec_id: str, introduction: bytes, *, reading: bool = False
    ) -> bool:
        """Start an exec and read it from now on; False while somebody else reads.

        Raises EngineAway, EngineRefused, OSError.
        """
        if not track.spool.lock():
            track.look_again(_AGAIN_S)
            return False
        try:
            body = {"Detach": False, "Tty": False}
            channel = self._engine.raw("POST", f"/exec/{exec_id}/start", None, body)
        except BaseException:
            track.spool.unlock()
            raise
        try:
            stream = track.open(channel, reading=reading)
            channel.send(introduction)
        except BaseException:
            channel.close()
            track.spool.unlock()
            raise
        self._follower.follow(channel, track.spool, stream, self._ended(track))  # type: ignore[arg-type]
        return True

    def _ended(self, track: ExecTrack) -> Callable[[], None]:
        def ended() -> None:
            track.asked_at = None
            track.wake()
            self._pump.news()

        return ended

    def _never_started(self, track: ExecTrack) -> bool:
        """Does the engine know the exec, and that it was never started? Raises EngineAway, EngineRefused."""
        try:
            told = self._engine.ask("GET", f"/exec/{track.plan.get('exec')}/json", timeout_s=5.0)
        except EngineRefused as error:
            if error.status >= 500:
                raise
            return False
        return not told.get("Running") and told.get("ExitCode") is None and not told.get("Pid")

    # --- while it runs -------------------------------------------------------------------------------

    def wait(self, run: ClaimedRun, timeout_s: float) -> Result | None:
        track = self._track(run)
        deadline = time.monotonic() + timeout_s
        while track.result is None:
            if track.due():
                with track.lock:
                    if track.result is None:
                        track.result = self._look(track, run)
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            track.sleep(left)
        return track.result

    def _look(self, track: ExecTrack, run: ClaimedRun) -> Result | None:
        if track.result is None and track.plain:
            return self._look_plain(track)
        if track.read_end():
            return self._over(track)
        if track.stop_request() is not None:
            self._enforce(track)
        if track.gone:
            return self._lost(track)
        if track.connected():
            if track.asked_at is not None and time.monotonic() - track.heard_at > _SILENT_S:
                self._follower.forget(track.spool)
            track.look_again(_AGAIN_S)
            return None
        return self._go_on(track, run)

    def _over(self, track: ExecTrack) -> Result | None:
        """Its end is known: a stop that was asked for before must have ended all of it."""
        if track.lost:
            return Result(lost=True)
        request, code = track.stop_request(), track.code or 0
        if track.missing:
            program = track.plan.get("program")
            return Result(error=f"there is no program {program} in the container, or it is not executable")
        if request is not None and request.sent:
            self._enforce(track)
            if self._signal(track, "0"):
                track.look_again(0.1)
                return None
            request = track.stop_request()
        return Result(
            code=code,
            killed=request.why if request is not None and request.effective(code) else None,
            ran_s=track.ended_ran_s,
        )

    def _lost(self, track: ExecTrack) -> Result | None:
        """Nobody will know the exit code: nothing of it may go on."""
        if self._signal(track, "KILL"):
            track.look_again(0.1)
            return None
        track.save_lost()
        return Result(lost=True)

    def _go_on(self, track: ExecTrack, run: ClaimedRun) -> Result | None:
        """Nobody reads it: the worker before died, or the stream was cut. Ask in the container."""
        since = time.monotonic() - track.opened_at
        if since < _AGAIN_S:
            track.look_again(_AGAIN_S - since)
            return None
        track.opened_at = time.monotonic()
        try:
            found = self._engine.inspect(track.plan["container"], timeout_s=10.0)
            if found is None or not found["State"]["Running"]:
                track.note("its container is gone" if found is None else "its container stopped")
                track.save_lost()
                return Result(lost=True)
            if self._never_started(track):
                return self._start_again(track, run)
            self._read(track)
        except (EngineAway, EngineRefused, OSError) as error:
            log.info("exec.not_reached", attempt=track.name, error=str(error))
        track.look_again(_AGAIN_S)
        return None

    def _read(self, track: ExecTrack) -> bool:
        """Read what the wrapper has left or leaves, by an exec with the rights of the first.

        False while somebody else reads. Raises EngineAway, EngineRefused, OSError.
        """
        made = self._engine.ask(
            "POST",
            f"/containers/{track.plan['container']}/exec",
            body={
                "AttachStdin": True,
                "AttachStdout": True,
                "AttachStderr": True,
                "User": track.plan.get("user") or "",
                "Privileged": bool(track.plan.get("privileged")),
                "Cmd": exec_scripts.reader(track.plan["mark"], track.files),
            },
        )
        return self._converse(track, made["Id"], f"{track.plan['word']}\n".encode(), reading=True)

    def _start_again(self, track: ExecTrack, run: ClaimedRun) -> Result | None:
        """A start whose answer never came was not carried out."""
        request = track.stop_request()
        if request is not None:
            return Result(killed=request.why)
        try:
            self._launch(track, _spec(run), run.secrets)
        except PrepareFailed as failure:
            if not failure.ours:
                return Result(error=failure.message)
        track.look_again(_AGAIN_S)
        return None

    def _look_plain(self, track: ExecTrack) -> Result | None:
        """Without the wrapper: the engine's record of the exec is the only truth."""
        if track.read_end():
            return self._over(track)
        if track.stop_request() is not None:
            self._enforce(track)
        if track.connected():
            track.look_again(_AGAIN_S)
            return None
        try:
            told = self._engine.ask("GET", f"/exec/{track.plan['exec']}/json", timeout_s=10.0)
        except EngineAway:
            track.look_again(_AGAIN_S)
            return None
        except EngineRefused as error:
            if error.status >= 500:
                track.look_again(_AGAIN_S)
                return None
            return self._lost(track)
        if track.stream is None:
            track.note("its output after its worker's end is missing: its container has no shell")
        if told.get("Running") or told.get("ExitCode") is None:
            track.look_again(_AGAIN_S / 2)
            return None
        code = int(told["ExitCode"])
        if not told.get("Pid") and code in (126, 127):
            return Result(error=self._first_words(track) or f"the engine says {code}")
        track.save_end(code)
        return self._over(track)

    # --- stopping ------------------------------------------------------------------------------------

    def stop(self, run: ClaimedRun, why: str, grace_s: float) -> None:
        """Written down first: the watcher carries it out at once, and whoever adopts it later."""
        track = self._track(run)
        track.request_stop(why, grace_s)
        track.wake()

    def _enforce(self, track: ExecTrack) -> None:
        """TERM once, after the grace period KILL until nothing is left."""
        request = track.stop_request()
        if request is None:
            return
        left = request.deadline - control.boottime()
        signal = "KILL" if left <= 0 else "" if request.sent else "TERM"
        track.look_again(min(left, 1.0) if left > 0 else 0.2)
        if not signal:
            return
        found = self._signal(track, signal)
        if found:
            track.mark_sent()
        else:
            track.look_again(0.1)  # it is about to begin, or it has ended

    def _signal(self, track: ExecTrack, signal: str) -> int | None:
        """Signal all that belongs to it ("0": count only); how many there were, None when nobody can tell."""
        if not track.plain and (found := track.signal(signal, _SIGNAL_S)) is not None:
            return found
        plan = {**track.plan, "session": track.session}
        if not track.plain:
            with contextlib.suppress(EngineAway, EngineRefused):
                found = execs.kill_inside(self._call, plan, signal)
                if found is not None:
                    return found
        if signal == "0":
            return len(execs.processes(plan["container"], plan["mark"]))
        return execs.kill_from_host(plan["container"], plan["mark"], signal)

    def _call(self, method: str, path: str, body: dict[str, Any]) -> bytes:
        with self._engine.stream(method, path, body=body, timeout_s=10.0) as answer:
            return answer.read()

    # --- the rest ------------------------------------------------------------------------------------

    def facts(self, run: ClaimedRun) -> Facts:
        track = self._track(run)
        known = {
            "exec_id": track.plan.get("exec"),
            "container_id": track.plan.get("container"),
            "pid": track.engine_pid,
        }
        return Facts({name: value for name, value in known.items() if value}, track.told)

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
        )

    def cleanup(self, run_id: int, attempt: int) -> None:
        track = self._track_of(run_id, attempt, {})
        if track.launched and not track.plain and not self._removed_inside(track):
            log.warning("exec.not_cleaned", attempt=track.name, container=track.plan.get("container"))
            self._uncleaned.add((run_id, attempt))
            return
        if track.spool.open:
            self._follower.forget(track.spool)
        step("runner.during_cleanup")
        self._forget((run_id, attempt))
        shutil.rmtree(self._control / track.name, onerror=make_removable)
        self._uncleaned.discard((run_id, attempt))

    def _removed_inside(self, track: ExecTrack) -> bool:
        """Remove the files in the container; False when it has to be tried again."""
        if not track.connected():
            try:
                found = self._engine.inspect(track.plan["container"], timeout_s=10.0)
                if found is None or not found["State"]["Running"] or self._never_started(track):
                    return True
                if not self._read(track):
                    return False
            except EngineRefused as error:
                return error.status < 500
            except (EngineAway, OSError):
                return False
        track.send("q")
        deadline = time.monotonic() + _SIGNAL_S
        while track.spool.open and time.monotonic() < deadline:
            time.sleep(0.002)
        return True

    def _clean_again(self) -> None:
        for run_id, attempt in list(self._uncleaned):
            self.cleanup(run_id, attempt)

    def attempts(self) -> list[tuple[int, int]]:
        found = [entry.name.partition("-")[::2] for entry in self._control.iterdir()]
        return sorted(
            (int(run_id), int(attempt)) for run_id, attempt in found if run_id.isdigit() and attempt.isdigit()
        )

    def kill_orphan(self, run_id: int, attempt: int) -> None:
        track = self._track_of(run_id, attempt, {})
        if not track.launched or track.read_end():
            return
        deadline = time.monotonic() + _SETTLE_S
        with contextlib.suppress(EngineAway, EngineRefused):
            while self._signal(track, "KILL") and time.monotonic() < deadline:
                time.sleep(0.05)

    def renewed(self, as_of: float, kill_after_s: float, lost_after_s: float) -> None:
        self._kill_after = kill_after_s
        self._pump.start()
        try:
            self._guard.renew(as_of, kill_after_s, lost_after_s)
        except OSError as error:
            log.warning("guard.not_told", error=str(error), meaning="it kills as if this node were lost")

    def trouble(self) -> str:
        self._pulse.start()
        free = shutil.disk_usage(self._control).free // (1024 * 1024)
        if free < settings.GANTRY_MIN_FREE_MB:
            return f"only {free} MiB free in {self._control}, it needs {settings.GANTRY_MIN_FREE_MB}"
        return self._pulse.trouble


def _refused(status: int, words: str) -> PrepareFailed:
    """Whose fault it is that an exec could not be made or started."""
    said = words.removeprefix("OCI runtime exec failed: ")
    theirs = status in (400, 404, 409, 500) and not any(
        hint in words
        for hint in ("containerd", "context deadline", "connection refused", "i/o timeout", "no space left")
    )
    if theirs:
        return PrepareFailed(Reason.CREATE, f"Command could not be started: {said}")
    return PrepareFailed(Reason.RUNTIME, f"Command could not be started: {said}", ours=True)


def _spec(run: ClaimedRun) -> ExecSpec:
    try:
        return ExecSpec.from_json(run.spec)
    except NewerSpecError as error:
        raise PrepareFailed(Reason.RUNTIME, str(error), ours=True, wait_s=_UPGRADE_S) from error
    except (ValueError, TypeError) as error:
        raise PrepareFailed(Reason.CREATE, str(error)) from error
