"""Starting a launcher, and one connection to it: requests with their replies, and pushed events.

Imports the standard library and the launcher's file formats only. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers import launcher
from workers.launcher import control

_CONNECT_TIMEOUT = 5.0  # seconds
_SEND_TIMEOUT = 5  # seconds


_PROGRAM = str(Path(launcher.__file__).with_name("__main__.py"))
_HOPELESS = (64, 71)  # exit codes of a launcher (workers.launcher.process) for which there is no second try


class BrokenLinkError(Exception):
    """The connection ended or stayed silent: what was asked may or may not have been done."""


class _Pending:
    __slots__ = ("done", "reply")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reply: dict[str, Any] | None = None


class Link:
    """Thread-safe. One reader thread, which ends with the connection."""

    def __init__(self, channel: socket.socket, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._channel = channel
        self._on_event = on_event
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._ids = itertools.count(1)
        self.alive = True
        threading.Thread(target=self._read, name="launcher-link", daemon=True).start()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its reply. Raises BrokenLinkError; ValueError when it is too large."""
        number = next(self._ids)
        frame = json.dumps({**request, "id": number}).encode() + b"\n"
        if len(frame) > control.FRAME_LIMIT:
            raise ValueError(f"a request of {len(frame)} bytes: the limit is {control.FRAME_LIMIT}")
        pending = _Pending()
        with self._lock:
            if not self.alive:
                raise BrokenLinkError("the connection ended")
            self._pending[number] = pending
            try:
                self._channel.sendall(frame)
            except OSError as error:
                del self._pending[number]
                self.close()  # a part of the frame may be out: nothing can follow it
                raise BrokenLinkError(f"cannot send: {error}") from error
        answered = pending.done.wait(timeout)
        self._pending.pop(number, None)
        if pending.reply is None:
            raise BrokenLinkError("the connection ended" if answered else f"no answer within {timeout:.0f} s")
        return pending.reply

    def close(self) -> None:
        """End the connection; who waits for a reply gets BrokenLinkError."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        # Unbuffered lines: a reply is handed on as soon as it is complete.
        rest = b""
        try:
            while data := self._channel.recv(1 << 18):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self.alive = False
                waiting = list(self._pending.values())
                self._pending.clear()
                self._channel.close()
            for pending in waiting:
                pending.done.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(message)
            return
        pending = self._pending.pop(message.get("id", 0), None)
        if pending is not None:
            pending.reply = message
            pending.done.set()


def connect(control_dir: str, on_event: Callable[[dict[str, Any]], None]) -> Link | None:
    """A connection to the launcher of this folder; None when nobody listens there."""
    try:
        address, folder = control.socket_address(control_dir)
    except OSError:
        return None
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.settimeout(_CONNECT_TIMEOUT)
    try:
        channel.connect(address)
    except OSError:
        channel.close()
        return None
    finally:
        if folder is not None:
            os.close(folder)
    channel.settimeout(None)
    # A launcher that stands still must not hold up whoever sends; receiving has its own thread and may wait.
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT, 0))
    return Link(channel, on_event)


def spawn(python: str, control_dir: str, options: list[str], timeout: float) -> tuple[str, bool]:
    """Start a launcher, which listens on return. Else: why it does not, and is a second try no use?"""
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-X", "utf8", _PROGRAM, control_dir, *options],
            # An environment of its own: the worker's holds secrets, and runs can be of the same user.
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), False
    problem = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
    return problem, done.returncode in _HOPELESS
