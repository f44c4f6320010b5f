"""The worker's side of the launcher: start, stop, ask, wait. Safe to use from many threads.

Imports the standard library and the launcher's file formats, nothing else: no Django, no settings.
The files of the control folder are the truth. The socket makes things happen and saves waiting, so a dead
launcher costs a second here and there and never an answer: stop, state and wait work without one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from workers.launcher import control
from workers.runtimes.launched.link import BrokenLinkError, Link, connect, spawn
from workers.runtimes.launched.records import Exit, Hello, RunState, StartRequest

logger = logging.getLogger(__name__)

_POLL = 1.0  # seconds between looks at the files while waiting: the backstop of the pushed event
_REQUEST_TIMEOUT = 30.0  # seconds
_SPAWN_TIMEOUT = 5.0  # seconds until a new launcher must listen
_BUSY_PAUSE = 0.02  # seconds before asking again


class LauncherError(Exception):
    """The launcher refused: bad_name, bad_request, start_failed, stopped, fenced, isolation, system."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LauncherUnavailableError(LauncherError):
    """There is no launcher and none can be started, or it did not answer in time: the outcome is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__("unavailable", message)


class _Waiter:
    """Somebody waiting for the end of a run."""

    __slots__ = ("exit", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.exit: Exit | None = None


class LauncherClient:
    """A connection to the launcher of one control folder; starts the launcher when there is none.

    `on_exit(name, exit)` is called in the reader's thread for every end that is pushed (exit None: lost); it
    must be quick and must not ask the launcher anything.
    """

    def __init__(
        self,
        control_dir: Path,
        *,
        isolation: Literal["on", "off", "none"] = "on",
        uid_base: int | None = None,
        cgroup: str = "auto",
        idle_exit: float = 60.0,
        on_exit: Callable[[str, Exit | None], None] | None = None,
        python: str = sys.executable,
    ) -> None:
        self._control = str(control_dir)
        self._options = ["--idle-exit", str(idle_exit), "--isolation", isolation, "--cgroup", cgroup]
        if uid_base is not None:
            self._options += ["--uid-base", str(uid_base)]
        self._on_exit = on_exit
        self._python = python
        self._connecting = threading.Lock()
        self._reviving = threading.Lock()
        self._link: Link | None = None
        self._waiters_lock = threading.Lock()
        self._waiters: dict[str, list[_Waiter]] = {}
        self._closed = False

    # --- requests -----------------------------------------------------------------------------------

    def ensure(self) -> Hello:
        """Connect, starting the launcher if needed. Raises LauncherUnavailableError."""
        return Hello.read(self._ask({"op": "hello"}))

    def start(self, request: StartRequest) -> RunState:
        """Start a run once, however often it is asked for; the state says what is true now.

        Raises LauncherError; LauncherUnavailableError when the outcome is unknown (ask again, or ask state).
        """
        return RunState.read(self._ask(request.frame()))

    def renew(self, kill_after: float, lost_after: float | None = None, as_of: float | None = None) -> None:
        """This worker was alive at `as_of` (control.boottime(); None: now).

        The guard stops fenced runs `kill_after` seconds later, and has killed them before `lost_after`.
        """
        self._ask({"op": "renew", "kill_after": kill_after, "lost_after": lost_after, "as_of": as_of})

    def runs(self) -> dict[str, str]:
        """Every attempt with a control folder here: name -> state. Read from the files."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(folder.name for folder in Path(self._control, "runs").iterdir())
            return {name: self.state(name).state for name in names}
        return {}

    def stop(self, name: str, why: str, grace: float) -> RunState:
        """Ask every process of the run to end; KILL after `grace` seconds. Returns the state as it was.

        Needs no launcher: the shim obeys a file. What never executed is marked and will not start any more.
        """
        folder = control.run_dir(self._control, name)
        state = self.state(name)
        if state.state in (control.RUNNING, control.PREPARED):
            control.write_stop(folder, why, grace)
            control.signal_shim(folder)
        return state

    def forbid(self, name: str) -> RunState:
        """After an unanswered start: it will not start any more, unless it has. Returns the state now."""
        folder = control.run_dir(self._control, name)
        if self.state(name).state in (control.ABSENT, control.PREPARED):
            Path(folder).mkdir(0o700, parents=True, exist_ok=True)
            control.write_stop(folder, "unanswered", 0.0)
            control.signal_shim(folder)
        return self.state(name)

    def state(self, name: str) -> RunState:
        """The true state, from the files."""
        return RunState.read(control.state_of(control.run_dir(self._control, name)))

    def wait(self, name: str, timeout: float | None) -> Exit | None:
        """Wait for the end of a run. None when the time is over, or at once when there is no end to wait for:
        lost or absent (ask state). Never busy: woken by the launcher, with a look at the files each second.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = _Waiter()
        with self._waiters_lock:
            self._waiters.setdefault(name, []).append(waiter)
        try:
            while True:
                now = self.state(name)
                if now.exit is not None or now.state in (control.LOST, control.ABSENT):
                    return now.exit
                left = _POLL if deadline is None else min(_POLL, deadline - time.monotonic())
                if left <= 0:
                    return None
                if waiter.woken.wait(left):
                    return waiter.exit
                self._revive()
        finally:
            with self._waiters_lock:
                self._waiters[name].remove(waiter)
                if not self._waiters[name]:
                    del self._waiters[name]

    def output_path(self, name: str, stream: str) -> Path:
        """The file of `stdout` or `stderr`. See read_output for reading it while it may be capped."""
        return Path(control.run_dir(self._control, name)) / stream

    def read_output(self, name: str, stream: str, offset: int, limit: int) -> tuple[bytes, int]:
        """Bytes of an output file from a logical offset: (data, offset of its first byte).

        Dropped bytes are skipped: the returned offset is then beyond the one asked for. Empty: no more yet.
        """
        folder = control.run_dir(self._control, name)
        try:
            with Path(folder, stream).open("rb") as file:
                while True:
                    data = os.pread(file.fileno(), limit, offset)
                    # Only after reading: the shim writes `holes` before it makes one.
                    holes = control.read_record(f"{folder}/holes") or {}
                    start, end = holes.get(stream) or (offset, offset)
                    if offset < start:
                        return data[: start - offset], offset
                    if offset >= end:
                        return data, offset
                    offset = end
        except FileNotFoundError:
            return b"", offset

    def quit(self) -> None:
        """End the launcher, if there is one. Runs go on; the next request starts a new launcher."""
        with self._connecting:
            link = self._link if self._link and self._link.alive else connect(self._control, self._hear)
            self._link = None
        if link is not None:
            with contextlib.suppress(BrokenLinkError):
                link.ask({"op": "quit"}, _REQUEST_TIMEOUT)
            link.close()

    def close(self) -> None:
        """Let go of the connection. Launcher and runs stay."""
        with self._connecting:
            self._closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()

    # --- the connection -----------------------------------------------------------------------------

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request, sent again after a broken connection: every request may be repeated."""
        deadline = time.monotonic() + _REQUEST_TIMEOUT
        while True:
            link = self._connected()
            try:
                reply = link.ask(request, max(0.1, deadline - time.monotonic()))
            except BrokenLinkError as error:
                if time.monotonic() > deadline:
                    raise LauncherUnavailableError(f"the launcher of {self._control}: {error}") from error
                time.sleep(_BUSY_PAUSE)
                continue
            if reply.get("ok"):
                return reply
            if reply.get("code") != "busy" or time.monotonic() > deadline:
                raise LauncherError(str(reply.get("code")), str(reply.get("message")))
            time.sleep(_BUSY_PAUSE)

    def _connected(self) -> Link:
        link = self._link
        if link is not None and link.alive:
            return link
        with self._connecting:
            if self._closed:
                raise LauncherUnavailableError("this client is closed")
            if self._link is not None and self._link.alive:
                return self._link
            self._link = self._greet() or self._spawn()
            return self._link

    def _greet(self) -> Link | None:
        """Connect and subscribe. None when no launcher of this version is there."""
        link = connect(self._control, self._hear)
        if link is None:
            return None
        try:
            hello = link.ask({"op": "hello"}, _SPAWN_TIMEOUT)
            if hello.get("version") == control.PROTOCOL:
                link.ask({"op": "subscribe"}, _SPAWN_TIMEOUT)
                return link
            # Left by another release. Its runs go on under their shims.
            logger.info("replacing launcher version %s by %s", hello.get("version"), control.PROTOCOL)
            link.ask({"op": "quit"}, _SPAWN_TIMEOUT)
        except BrokenLinkError:
            pass
        link.close()
        return None

    def _spawn(self) -> Link:
        deadline = time.monotonic() + _SPAWN_TIMEOUT
        while True:
            problem, hopeless = spawn(self._python, self._control, self._options, _SPAWN_TIMEOUT)
            link = (
                None if hopeless else self._greet()
            )  # perhaps of another worker's launcher, faster than ours
            if link is not None:
                return link
            if hopeless or time.monotonic() > deadline:
                raise LauncherUnavailableError(f"no launcher for {self._control} could be started: {problem}")
            time.sleep(0.05)

    def _revive(self) -> None:
        """While somebody waits there should be a launcher: it is the guard, and it wakes the waiting.

        In a thread of its own: who waits looks at the files meanwhile, however long a launcher takes.
        """
        link = self._link
        if self._closed or (link is not None and link.alive) or not self._reviving.acquire(blocking=False):
            return
        threading.Thread(target=self._connect_again, name="launcher-revive", daemon=True).start()

    def _connect_again(self) -> None:
        try:
            self._connected()
        except LauncherUnavailableError as error:
            logger.warning("waiting without a launcher: %s", error)
        finally:
            self._reviving.release()

    def _hear(self, event: dict[str, Any]) -> None:
        name, ended = str(event.get("name")), Exit.read(event.get("exit"))
        with self._waiters_lock:
            for waiter in self._waiters.get(name, ()):
                waiter.exit = ended
                waiter.woken.set()
        if self._on_exit is not None:
            try:
                self._on_exit(name, ended)
            except Exception:
                logger.exception("the handler of ended runs failed for %s", name)
