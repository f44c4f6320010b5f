"""The worker's side of the listener (``workers.launcher.listener``): keeps it alive, gives orders, hears of
ends.

Must not import Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from workers.launcher import control
from workers.launcher.listener import PROTOCOL, SOCKET
from workers.runtimes.container.guard import begin
from workers.runtimes.engine.client import Engine
from workers.runtimes.exec.track import ExecTrack

#: How long a new listener may take to be there.
_BEGIN_S: Final = 10.0


class NotHeardError(Exception):
    """Nobody took the order: nothing was done."""


class Listening:
    """One per worker; ``folder`` belongs to the listener of the node."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = str(folder)
        self._engine = engine
        self._lock = threading.Lock()
        self._news = _News()

    def order(self, track: ExecTrack, do: str, words: list[str] | None, patience_s: float) -> dict[str, Any]:
        """The listener's first answer, {} when none came in time: it goes on with the order all the same.

        Raises NotHeardError: nothing was done.
        """
        order = {
            "protocol": PROTOCOL,
            "do": do,
            "folder": str(track.folder),
            "exec": track.plan["exec"],
            "engine": self._engine.record(),
            "word": track.plan["word"],
            "words": words,
            "head": track.spool.head,
            "tail": track.spool.tail,
            "since": (track.folder / "launched").stat().st_mtime - 1 if do == "follow" else None,
        }
        link = self._connected()
        try:
            link.settimeout(patience_s)
            link.sendall(control.dump(order) + b"\n")
        except OSError as error:
            link.close()
            raise NotHeardError(f"the listener of this node does not listen: {error}") from error
        line = b""
        with contextlib.suppress(OSError):
            while not line.endswith(b"\n") and (more := link.recv(65536)):
                line += more
        self._news.hear(link, track)
        return json.loads(line.partition(b"\n")[0]) if b"\n" in line else {}

    def _connected(self) -> socket.socket:
        """Raises NotHeardError."""
        deadline = time.monotonic() + _BEGIN_S
        while True:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                address, held = control.socket_address(self._folder, SOCKET)
                try:
                    link.connect(address)
                finally:
                    if held is not None:
                        os.close(held)
            except OSError as error:
                link.close()
                if time.monotonic() > deadline:
                    raise NotHeardError(f"the listener of this node does not begin: {error}") from error
                self._begin()
                time.sleep(0.02)
            else:
                return link

    def _begin(self) -> None:
        with self._lock:
            if control.lock_held(self._folder):
                return
            try:
                begin("execs", self._folder)
            except OSError as error:
                raise NotHeardError(f"the listener of this node cannot be started: {error}") from error


class _News:
    """The thread that waits for what the listener says of ends: whoever waits for an exec is woken."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hear(self, link: socket.socket, track: ExecTrack) -> None:
        link.setblocking(False)
        with self._lock:
            self._selector.register(link, selectors.EVENT_READ, track)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="exec-news", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(1.0):
                link: socket.socket = key.fileobj  # type: ignore[assignment]
                with contextlib.suppress(OSError):
                    if link.recv(65536):
                        key.data.wake()
                        continue
                with self._lock:
                    self._selector.unregister(link)
                link.close()
                key.data.wake()
