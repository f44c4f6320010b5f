"""Bringing an exec to its start: created once, started once, by the listener of the node.

What a request did that got no answer is asked of the engine before anything is done again. Must not import
the database or Celery.
"""

from __future__ import annotations

import secrets as randomness
from typing import Any, Final

import structlog

from workers.launcher import control, execs
from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import Engine, EngineRefused
from workers.runtimes.exec import wrapper
from workers.runtimes.exec.listening import Listening, NotHeardError
from workers.runtimes.exec.track import ExecTrack
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: How long the engine's word that the command runs is waited for; then whoever watches it goes on.
_HEAR_S: Final = 15.0
#: Containers whose variables are remembered.
_REMEMBERED: Final = 1000
#: What a shell has and no container has as a program.
_BUILTINS: Final = frozenset(
    [
        "alias",
        "bg",
        "cd",
        "command",
        "eval",
        "exec",
        "exit",
        "export",
        "fg",
        "getopts",
        "hash",
        "jobs",
        "let",
        "local",
        "read",
        "readonly",
        "return",
        "set",
        "shift",
        "source",
        "times",
        "trap",
        "type",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "wait",
        ".",
        ":",
    ]
)


class Starter:
    """Creates and starts the execs of one node."""

    def __init__(self, engine: Engine, listening: Listening) -> None:
        self._engine = engine
        self._listening = listening
        #: Images without /bin/sh.
        self._shellless: set[str] = set()
        #: The variables of containers, which never change.
        self._variables: dict[str, list[str]] = {}

    def create(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Create the exec: executes nothing. Raises EngineAway, EngineRefused, OSError."""
        wrapped = track.plan["image"] not in self._shellless
        environment = {**spec.env, execs.MARK: track.plan["mark"]}
        body: dict[str, Any] = {
            "AttachStdin": wrapped,
            "AttachStdout": True,
            "AttachStderr": True,
            "User": spec.user,
            "Env": [f"{name}={value}" for name, value in environment.items()],
            "Privileged": spec.privileged,
            "Cmd": wrapper.command() if wrapped else [*spec.argv, *secrets],
        }
        if spec.working_dir:
            body["WorkingDir"] = spec.working_dir
        made = self._engine.ask("POST", f"/containers/{track.plan['container']}/exec", body=body)
        track.save_plan(exec=made["Id"], wrapped=wrapped, word=f"\x1e{randomness.token_hex(16)}")

    def launch(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Start the exec that was created. Raises PrepareFailed, EngineAway, EngineRefused, OSError."""
        words = self._words(track, spec, secrets) if track.wrapped else None
        try:
            told = self._listening.order(track, "start", words, _HEAR_S)
        except NotHeardError as error:
            raise PrepareFailed(Reason.RUNTIME, str(error), ours=True) from error
        track.wake()
        if "pid" in told:
            track.process = told
        elif "failed" in told:
            raise PrepareFailed(Reason.RUNTIME, str(told["failed"]), ours=True)
        elif "refused" in told:
            status, said = told["refused"]
            raise refused(status, said)
        elif track.has_ended() and "never" in (track.end or {}):
            self._never(track, spec, secrets)
        # Else nobody knows yet: the watcher finds out.

    def _words(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> list[str]:
        container = track.plan["container"]
        if container not in self._variables:
            found = self._engine.inspect(container, timeout_s=10.0)
            if found is None:
                raise EngineRefused(404, "the container is gone")
            if len(self._variables) >= _REMEMBERED:
                self._variables.clear()
            self._variables[container] = list(found["Config"].get("Env") or ())
        own = {**spec.env, execs.MARK: track.plan["mark"]}
        return wrapper.words(self._variables[container], own, [*spec.argv, *secrets])

    def _never(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Nothing of it ran: no shell for the wrapper, or the engine says why. Raises PrepareFailed."""
        said = str((track.end or {})["never"])
        if track.wrapped and '"/bin/sh"' in said:
            log.info("exec.no_shell", container=track.plan["container"], said=said)
            self._shellless.add(track.plan["image"])
            self.create(track, spec, secrets)
            track.forget_end()
            self.launch(track, spec, secrets)
            return
        raise never_ran(track.plan["program"], said)


def never_ran(program: str, said: str) -> PrepareFailed:
    """The engine's word that nothing of a command was executed, or the wrapper's ("")."""
    words = said.removeprefix("OCI runtime exec failed: ").removeprefix("exec failed: ")
    words = words.removeprefix("unable to start container process: ").removesuffix(": unknown")
    words = words or f"there is no program {program} in the container, or it is not executable"
    if program in _BUILTINS:
        words += f". {program} is a word of shells and no program: write sh -c '{program} ...'"
    return PrepareFailed(Reason.CREATE, f"Command could not be started: {words}")


def refused(status: int, words: str) -> PrepareFailed:
    """Whose fault it is that an exec could not be made or started."""
    said = words.removeprefix("OCI runtime exec failed: ")
    theirs = status in (400, 404, 409, 500) and not any(
        hint in words
        for hint in ("containerd", "context deadline", "connection refused", "i/o timeout", "no space left")
    )
    if theirs:
        return PrepareFailed(Reason.CREATE, f"Command could not be started: {said}")
    return PrepareFailed(Reason.RUNTIME, f"Command could not be started: {said}", ours=True)


def never_started(engine: Engine, track: ExecTrack) -> bool:
    """Does the engine know the exec, and that it was never started? Raises EngineAway, EngineRefused."""
    if track.listened or control.read_record(str(track.folder / "exit")) is not None:
        return False
    try:
        told = engine.ask("GET", f"/exec/{track.plan.get('exec')}/json", timeout_s=5.0)
    except EngineRefused as error:
        if error.status >= 500:
            raise
        return False
    return not told.get("Running") and told.get("ExitCode") is None and not told.get("Pid")
