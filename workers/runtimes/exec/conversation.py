"""The conversation with an exec: its stream read from its start or by a reader, begun anew, cleaned up after.

One stream at a time, whose reading thread tells the attempt's track what it hears (``track``); whoever
holds the spool's lock reads. Must not import the database or Celery.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from workers.runtimes.container.stream import Follower
from workers.runtimes.engine.client import Engine, EngineAway, EngineRefused
from workers.runtimes.exec import scripts
from workers.runtimes.exec.track import ExecTrack

#: Between two questions to an engine that does not answer, or that has not yet made up its mind.
AGAIN_S: Final = 1.0
#: How long the removal of the files in the container is waited for.
_CLEAN_S: Final = 5.0


class Conversation:
    """The streams of one node's execs; ``news`` is called when one has ended."""

    def __init__(self, engine: Engine, news: Callable[[], None]) -> None:
        self._engine = engine
        self._news = news
        self._follower = Follower()

    def begin(self, track: ExecTrack, exec_id: str, introduction: bytes, *, reading: bool = False) -> bool:
        """Start an exec and read it from now on; False while somebody else reads.

        Raises EngineAway, EngineRefused, OSError.
        """
        if not track.spool.lock():
            track.look_again(AGAIN_S)
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
            self._news()

        return ended

    def read(self, track: ExecTrack) -> bool:
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
                "Cmd": scripts.reader(track.plan["mark"], track.files),
            },
        )
        return self.begin(track, made["Id"], f"{track.plan['word']}\n".encode(), reading=True)

    def leave(self, track: ExecTrack) -> None:
        """Stop reading it; returns when nothing is written to its spool any more."""
        self._follower.forget(track.spool)

    def never_started(self, track: ExecTrack) -> bool:
        """Does the engine know the exec, and that it was never started? Raises EngineAway, EngineRefused."""
        try:
            told = self._engine.ask("GET", f"/exec/{track.plan.get('exec')}/json", timeout_s=5.0)
        except EngineRefused as error:
            if error.status >= 500:
                raise
            return False
        return not told.get("Running") and told.get("ExitCode") is None and not told.get("Pid")

    def learn_pid(self, track: ExecTrack, *, patience_s: float = 0.0) -> None:
        """Which process of the engine's host it is, if the engine says so within ``patience_s``.

        A brief command may have spoken, even ended, before the engine has written down its number.
        """
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(EngineAway, EngineRefused):
            while track.engine_pid is None:
                told = self._engine.ask("GET", f"/exec/{track.plan['exec']}/json", timeout_s=5.0)
                track.engine_pid = int(told.get("Pid") or 0) or None
                if track.engine_pid or time.monotonic() >= deadline:
                    return
                time.sleep(0.02)

    def removed_inside(self, track: ExecTrack) -> bool:
        """Remove the files in the container; False when it has to be tried again."""
        if not track.connected():
            try:
                found = self._engine.inspect(track.plan["container"], timeout_s=10.0)
                if found is None or not found["State"]["Running"] or self.never_started(track):
                    return True
                if not self.read(track):
                    return False
            except EngineRefused as error:
                return error.status < 500
            except (EngineAway, OSError):
                return False
        track.send("q")
        deadline = time.monotonic() + _CLEAN_S
        while track.spool.open and time.monotonic() < deadline:
            time.sleep(0.002)
        return True


def first_words(track: ExecTrack) -> str:
    """What the engine said instead of output."""
    with contextlib.suppress(OSError):
        said = track.spool.path(1).read_bytes()[:4096].decode(errors="replace").strip()
        if said:
            track.spool.path(1).unlink()
            return said
    return (track.stream.words if track.stream else b"").decode(errors="replace").strip()
