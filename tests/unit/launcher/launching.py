"""A node for the launcher's tests: real folders, a real launcher, real processes. Nothing is replaced.

Imports pytest, the standard library, the launcher's client and the tests' waiting only, so that the same
tests run as root and, in a pytest of their own, as an account-less user (see test_launcher_users.py).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import limit, wait_until
from workers.launcher import control
from workers.runtimes.launched.client import LauncherClient
from workers.runtimes.launched.records import Exit, RunState, StartRequest, fresh_environment

ROOT = os.geteuid() == 0
MODES = ("namespaces", "uids") if ROOT else ("none",)
PATIENCE = limit(60.0)  # seconds for anything that should take milliseconds on a quiet machine

_marks = itertools.count(1)


def eventually(what: Callable[[], bool], otherwise: str, see: Callable[[], object] | None = None) -> None:
    """Wait for it; ``otherwise`` says what is wrong if it does not come."""
    wait_until(what, every_s=0.01, why=otherwise, see=see)


def mark() -> str:
    """A number of seconds that no other process sleeps: `sleep <mark>` is found by it."""
    return f"8{next(_marks):04d}.{os.getpid():07d}"


def sleepers(number: str) -> list[int]:
    """The living processes with this mark in their command line, wherever they are in the tree."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if number.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def napping(number: str) -> list[int]:
    """The processes that are `sleep` with this mark: not the shell that starts it, nor a fork of that."""
    found = []
    for process in sleepers(number):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes() == f"sleep\0{number}\0".encode():
                found.append(process)
    return found


def alive(process: int) -> bool:
    """Does a process exist that is no zombie?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def stands(process: int) -> bool:
    """Do all its threads stand still, as SIGSTOP makes them after a moment?"""
    states = set()
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):
            states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states <= {"T", "t"}


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    eventually(lambda: not alive(process), f"process {process} does not die")


class Node:
    """A control folder, a folder for scratch folders, and a client."""

    def __init__(self, mode: str, cgroup: str = "auto") -> None:
        self.mode = mode
        self._cgroup = cgroup
        self.base = Path(tempfile.mkdtemp(prefix="gl", dir="/tmp"))
        self.base.chmod(0o711)
        self.control = self.base / "c"
        self.scratches = self.base / "s"
        self.scratches.mkdir(mode=0o711)
        self.ended: list[tuple[str, Exit | None]] = []
        self.client = self.another_client()
        self._names = (f"{number}-1" for number in itertools.count(1))
        self._clients = [self.client]

    def another_client(self, idle_exit: float = 60.0) -> LauncherClient:
        client = LauncherClient(
            self.control,
            isolation="on" if self.mode == "namespaces" else "off",
            cgroup=self._cgroup,
            idle_exit=idle_exit,
            on_exit=lambda name, end: self.ended.append((name, end)),
        )
        self._clients = [*getattr(self, "_clients", []), client]
        return client

    def request(
        self,
        script: str | list[str],
        name: str | None = None,
        env: dict[str, str] | None = None,
        *,
        nproc: int | None = None,
        nofile: int | None = None,
        data_bytes: int | None = None,
        head_bytes: int | None = None,
        tail_bytes: int | None = None,
        fence: bool = True,
    ) -> StartRequest:
        """A text is a script for sh; its scratch folder is made as a worker would."""
        name = name or next(self._names)
        scratch = self.scratch(name)
        scratch.mkdir(mode=0o700, exist_ok=True)
        return StartRequest(
            name=name,
            argv=["/bin/sh", "-c", script] if isinstance(script, str) else script,
            env=fresh_environment(scratch, {}) if env is None else env,
            scratch=scratch,
            nproc=nproc,
            nofile=nofile,
            data_bytes=data_bytes,
            head_bytes=head_bytes,
            tail_bytes=tail_bytes,
            fence=fence,
        )

    def start(self, script: str | list[str]) -> str:
        """Start a run that is new, and return its name."""
        request = self.request(script)
        state = self.client.start(request)
        assert (state.state, state.existed) == (control.RUNNING, False)
        return request.name

    def finish(self, request: StartRequest, client: LauncherClient | None = None) -> Exit:
        state = (client or self.client).start(request)
        assert not state.existed
        return self.end(request.name)

    def run(self, script: str | list[str]) -> tuple[Exit, str]:
        """Run to the end: how it ended, and what it wrote to stdout."""
        request = self.request(script)
        return self.finish(request), self.text(request.name)

    def end(self, name: str) -> Exit:
        ended = self.client.wait(name, PATIENCE)
        assert ended is not None, f"{name} has not ended: {self.client.state(name)}"
        return ended

    def state(self, name: str) -> RunState:
        return self.client.state(name)

    def shim(self, name: str) -> int:
        started = self.state(name).started
        assert started is not None
        return started.shim_pid

    def scratch(self, name: str) -> Path:
        return self.scratches / name

    def text(self, name: str, stream: str = "stdout") -> str:
        return self.client.output_path(name, stream).read_text()

    def until_written(self, name: str, text: str) -> None:
        """Wait for the run to say something."""
        eventually(
            lambda: text in self.text(name), f"{name} never wrote {text!r}", lambda: self.text(name)[-2000:]
        )

    def kill_launcher(self) -> None:
        kill(self.client.ensure().pid)

    def close(self) -> None:
        for name, state in self.client.runs().items():
            if state == control.RUNNING:
                self.client.stop(name, "test", 0)
                self.client.wait(name, PATIENCE)
        self.client.quit()
        for client in self._clients:
            client.close()
        subprocess.run(["rm", "-rf", self.base], check=False)  # any depth


@pytest.fixture(params=MODES)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    node = Node(request.param)
    try:
        yield node
    finally:
        node.close()
