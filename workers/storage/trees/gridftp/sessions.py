"""Speakers (``speaker/``) that are kept between two questions, and what passes between them and us.

A speaker that does not answer, or whose caller gives up in the middle, is killed: whatever its library was
doing ends with it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from fcntl import fcntl
from pathlib import Path
from typing import Any, Final

from workers.storage.trees.base import STALL_S, StorageFailed, Trouble, shown

SPEAKER: Final = Path(__file__).with_name("speaker")
#: A session that was idle for longer is not used again: servers end them, and the next question would fail.
_IDLE_S: Final = 30.0
#: How often somebody who waits looks at the clock.
_LOOK_S: Final = 0.2
_PIECE: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031


class Session:
    """One speaker. Used by one thread at a time."""

    def __init__(self, where: str, environment: dict[str, str], files: tuple[int, ...]) -> None:
        self._where = self._about = where
        self._peer, theirs = socket.socketpair()
        self._peer.settimeout(_LOOK_S)
        self._lines = b""
        self.used_at = 0.0
        self.alive = True
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SPEAKER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=files,
                cwd="/",
            )

    def order(self, order: dict[str, Any], path: bytes = b"", file: int | None = None) -> None:
        """Tell it what to do, with ``path`` in what it fails with; ``file`` stays ours."""
        self._about = f"{shown(path)}: {self._where}" if path else self._where
        data = json.dumps(order).encode() + b"\n"
        try:
            if file is None:
                self._peer.sendall(data)
            else:
                sent = socket.send_fds(self._peer, [data], [file])
                self._peer.sendall(data[sent:])
        except OSError as error:
            raise self._gone() from error

    def answer(
        self,
        moved: Callable[[int], None] | None = None,
        *,
        patience: float = STALL_S,
        deadline: float | None = None,
        longer: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """What it says in the end; ``moved`` is told how many bytes more have come through. Raises
        StorageFailed AWAY when ``patience`` seconds pass without one (``longer`` is asked once then, how many
        more), or the deadline (monotonic)."""
        so_far, since = 0, time.monotonic()
        while True:
            if longer is not None and time.monotonic() > since + patience - 2:
                patience, longer = patience + longer(), None
            found = self.hear(since + patience, deadline)
            count = int(found.get("moved", 0))
            if count > so_far:
                if moved is not None:
                    moved(count - so_far)
                so_far, since = count, time.monotonic()
            elif moved is not None and "ok" not in found:
                moved(0)
            if "ok" in found:
                self.used_at = time.monotonic()
                return found

    def hear(self, until: float, deadline: float | None = None) -> dict[str, Any]:
        """The next that it says, before a moment (monotonic) has come. Raises StorageFailed AWAY."""
        found: dict[str, Any] = json.loads(self._line(until, deadline))
        return found

    def await_pipe(self, pipe: int, event: int) -> None:
        """Until a pipe to it can be used. Raises StorageFailed AWAY when it is silent for too long."""
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(STALL_S * 1000):
            raise self._silent(STALL_S)

    def kill(self) -> None:
        self.alive = False
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._peer.close()

    def _line(self, until: float, deadline: float | None) -> bytes:
        while b"\n" not in self._lines:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                self.kill()
                raise StorageFailed(f"{self._about}: it took longer than it may (timeout)", Trouble.AWAY)
            if now >= until:
                raise self._silent(STALL_S)
            try:
                piece = self._peer.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise self._gone() from error
            if not piece:
                raise self._gone()
            self._lines += piece
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    def _silent(self, seconds: float) -> StorageFailed:
        self.kill()
        return StorageFailed(f"{self._about}: nothing came through for {seconds:.0f} s", Trouble.AWAY)

    def _gone(self) -> StorageFailed:
        self.kill()
        return StorageFailed(
            f"{self._about}: our process that speaks GridFTP ended by itself ({self._process.returncode})",
            Trouble.AWAY,
        )


class Sessions:
    """Those of one tree; at most ``keep`` are kept while nobody needs them."""

    def __init__(self, where: str, environment: dict[str, str], files: tuple[int, ...], keep: int) -> None:
        self.where = where
        self._environment = environment
        self._files = files
        self._keep = keep
        self._idle: list[Session] = []
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> Session:
        """A session for the caller alone, who gives it back."""
        with self._lock:
            while self._idle:
                session = self._idle.pop()
                if time.monotonic() - session.used_at < _IDLE_S:
                    return session
                session.kill()
        return Session(self.where, self._environment, self._files)

    def give(self, session: Session, failed: BaseException | None = None) -> None:
        """``failed``: what it was used for has ended so. After a server's plain refusal it is good for more;
        when the server is away the idle ones go, too: their connections are dead as well."""
        refused = isinstance(failed, StorageFailed) and failed.trouble is not Trouble.AWAY
        if failed is not None and not refused:
            session.kill()
            if isinstance(failed, StorageFailed):
                self._drop(0)
        elif self._closed:
            session.kill()
        elif session.alive:
            with self._lock:
                self._idle.append(session)
            self._drop(self._keep)

    @contextmanager
    def one(self) -> Iterator[Session]:
        session = self.take()
        try:
            yield session
        except BaseException as failed:
            self.give(session, failed)
            raise
        self.give(session)

    def close(self) -> None:
        self._closed = True
        self._drop(0)

    def _drop(self, keep: int) -> None:
        with self._lock:
            idle, self._idle[:] = self._idle[keep:], self._idle[:keep]
        for session in idle:
            session.kill()


def wide_pipe() -> tuple[int, int]:
    """A pipe (to read, to write) that holds a whole piece where the system lets it."""
    reading, writing = os.pipe()
    with suppress(OSError):
        fcntl(reading, _F_SETPIPE_SZ, _PIECE)
    return reading, writing


def pieces(
    session: Session,
    order: dict[str, Any],
    path: bytes,
    refused: Callable[[dict[str, Any]], StorageFailed],
) -> Generator[bytes, None, None]:
    """What an order brings, at most 1 MiB at once. Closed before its end it ends the session."""
    ended = False
    reading, writing = wide_pipe()
    try:
        try:
            session.order(order, path, writing)
        finally:
            os.close(writing)
        while True:
            session.await_pipe(reading, select.POLLIN)
            piece = os.read(reading, _PIECE)
            if not piece:
                break
            yield piece
        answer = session.answer()
        ended = True
    finally:
        os.close(reading)
        if not ended:
            session.kill()
    if not answer["ok"]:
        raise refused(answer)
