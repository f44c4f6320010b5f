"""Bringing an exec to its start: created once, started once; without the wrapper where there is no shell.

What a request did that got no answer is asked of the engine before anything is done again. Must not import
the database or Celery.
"""

from __future__ import annotations

import secrets as randomness
import time
from collections.abc import Callable
from typing import Final

import structlog

from workers.launcher import control, execs
from workers.runtimes.base import PrepareFailed
from workers.runtimes.engine.client import Engine, EngineRefused
from workers.runtimes.exec import scripts
from workers.runtimes.exec.conversation import Conversation, first_words
from workers.runtimes.exec.track import ExecTrack
from workers.vocabulary.specs import ExecSpec
from workers.vocabulary.states import Reason

log = structlog.get_logger(__name__)

#: How long the wrapper's first word is waited for.
_HEAR_S: Final = 15.0


class Starter:
    """Creates and starts the execs of one node; ``news`` is called when there may be output to ask for."""

    def __init__(self, engine: Engine, talk: Conversation, news: Callable[[], None]) -> None:
        self._engine = engine
        self._talk = talk
        self._news = news
        #: Images without /bin/sh.
        self._shellless: set[str] = set()

    def shellless(self, image: str) -> bool:
        """Is it known that there is no shell in it?"""
        return image in self._shellless

    def create(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
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
            "Cmd": [*spec.argv, *secrets] if track.plain else scripts.wrapper(mark),
        }
        if spec.working_dir:
            body["WorkingDir"] = spec.working_dir
        made = self._engine.ask("POST", f"/containers/{track.plan['container']}/exec", body=body)
        track.save_plan(exec=made["Id"], word=f"\x1e{randomness.token_hex(16)}")

    def launch(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """Start the exec that was created. Raises PrepareFailed, EngineAway, EngineRefused, OSError."""
        track.begun_at = control.boottime()
        try:
            introduction = (
                b"" if track.plain else scripts.introduction(track.plan["word"], [*spec.argv, *secrets])
            )
            opened = self._talk.begin(track, track.plan["exec"], introduction)
        except EngineRefused as error:
            if error.status == 409 and "paused" not in error.message and not self._talk.never_started(track):
                return  # it was started before: the watcher goes on with it
            raise refused(error.status, error.message) from error
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
        self._talk.learn_pid(track)
        track.save_told()
        self._news()

    def _not_begun(self, track: ExecTrack, spec: ExecSpec, secrets: tuple[str, ...]) -> None:
        """The wrapper never spoke: no shell, or the engine says why. Raises PrepareFailed."""
        words = first_words(track)
        if '"/bin/sh"' in words and not track.plain:
            log.info("exec.no_shell", container=track.plan["container"], said=words)
            self._shellless.add(track.plan["image"])
            track.spool.path(1).unlink(missing_ok=True)
            track.save_plan(plain=True)
            self.create(track, spec, secrets)
            self.launch(track, spec, secrets)
            return
        if words:
            raise refused(500, words)
        track.wake()  # nobody knows: the watcher finds out


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
