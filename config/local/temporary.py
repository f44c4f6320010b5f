"""A whole Gantry in a temporary folder for the demo: started, stopped, and looked after for leftovers.

Must not import Django or any app.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from config.local.client import Client
from config.local.data import REPOSITORY
from config.local.processes import in_a_session, tail
from config.local.programs import fetch
from config.local.running import send
from config.local.terminal import complain, note, step

READY_S = 200.0
#: From TERM to KILL for a command that is killed.
GRACE_S = 2


class DemoFailed(Exception):
    """Something was not as promised; the message says what."""


def expect(holds: bool, text: str) -> None:
    if not holds:
        raise DemoFailed(text)


class Service:
    """`python -m config.local up` as a child, in `folder`, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.flower_port = free_ports(2)
        self.token = secrets.token_urlsafe(24)
        self.client = Client(f"http://127.0.0.1:{self.port}", self.token)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Service:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GANTRY_")
            and name not in ("DATABASE_URL", "REDIS_URL", "DJANGO_SECRET_KEY")
        }
        environment = {
            **inherited,
            "GANTRY_DATA_DIR": str(self.folder),
            "GANTRY_PORT": str(self.port),
            "GANTRY_FLOWER_PORT": str(self.flower_port),
            "GANTRY_BOOTSTRAP_TOKEN": self.token,
            "GANTRY_NODE_NAME": "demo",
            "GANTRY_NODE_ATTRIBUTES": "rack_id=r1",
            "GANTRY_NODE_CPUS": "4",
            "GANTRY_GRACE_S": str(GRACE_S),
            # The demo's own receiver; nowhere else may callbacks go to the machine itself.
            "GANTRY_CALLBACK_ALLOW_NETWORKS": "127.0.0.1/32",
            "GANTRY_URI_ALLOW_NETWORKS": "",
        }
        step("Starting Postgres, Redis, the API, a worker, the sender of callbacks and Flower")
        began = time.monotonic()
        with (self.folder / "up.log").open("wb") as output:
            command = [sys.executable, "-m", "config.local", "up"]
            self._process = in_a_session(command, environment, REPOSITORY, output)
        try:
            self._wait_until_ready(began + READY_S)
        except BaseException:
            self._stop()
            raise
        note(f"ready after {time.monotonic() - began:.1f} s at {self.client.url}")
        return self

    def _wait_until_ready(self, deadline: float) -> None:
        while True:
            status, answer = fetch(f"{self.client.url}/readyz")
            if status == 200:
                return
            if self._process is not None and (code := self._process.poll()) is not None:
                raise DemoFailed(f"`make up` ended with status {code} instead of serving")
            expect(time.monotonic() < deadline, f"not ready after {READY_S:.0f} s; /readyz says: {answer}")
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        step("Stopping everything, as Ctrl-C does")
        began = time.monotonic()
        code = self._stop()
        if sys.exc_info()[0] is None:
            expect(code == 0, f"`make up` ended with status {code} after its stop")
            note(f"stopped after {time.monotonic() - began:.1f} s")

    def _stop(self) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return -signal.SIGKILL

    def end_leftovers(self) -> None:
        """After a failure: commands go on without their worker, but not without their folder."""
        deadline = time.monotonic() + 5
        while (left := processes_of(self.folder)) and time.monotonic() < deadline:
            for process in left:
                send(int(process.split()[0]), signal.SIGKILL)
            time.sleep(0.05)

    def check_nothing_is_left(self) -> None:
        """No process of this demo and no listener.

        The node's launcher outlives the worker on purpose, and ends by itself when nothing runs for a minute:
        too long for a demo, which ends it.
        """
        for process in processes_of(self.folder):
            if "/launcher" in process:
                send(int(process.split()[0]), signal.SIGTERM)
        deadline = time.monotonic() + 60
        while left := processes_of(self.folder):
            expect(time.monotonic() < deadline, "these processes are left:\n  " + "\n  ".join(left))
            time.sleep(0.1)
        for port in (self.port, self.flower_port):
            with socket.socket() as probe:
                expect(probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on port {port}")
        note("no process and no listening port is left")


def show_logs(folder: Path) -> None:
    logs = [folder / "up.log", *sorted((folder / "log").glob("*.log")), *sorted(folder.glob("*/server.log"))]
    for log in logs:
        if log.exists() and (text := tail(log)).strip():
            complain(f"\n--- the end of {log.relative_to(folder)}")
            print(text, file=sys.stderr)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def all_processes() -> Iterator[tuple[int, str, bytes]]:
    """Id, arguments and environment of every live process that may be looked at, but for this one."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if arguments:
            yield int(entry.name), arguments, environment


def processes_of(folder: Path) -> list[str]:
    """What still runs of an installation: its folder is in the arguments, the environment or is worked in."""
    mark = str(folder)
    found = []
    for pid, arguments, environment in all_processes():
        try:
            inside = str(Path(f"/proc/{pid}/cwd").readlink()).startswith(mark)
        except OSError:
            inside = False
        if inside or mark in arguments or mark.encode() in environment:
            found.append(f"{pid} {arguments[:120]}")
    return found


def processes_with(text: str) -> list[str]:
    return [f"{pid} {arguments}" for pid, arguments, _ in all_processes() if text in arguments]
