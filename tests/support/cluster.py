"""Nodes and the API as the operating system runs them: real processes, killed, frozen and restarted.

Timers are shortened through the environment, nothing else differs from production.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from django.db import connection

from config.local.processes import in_a_session
from tests.support import warm
from tests.support.waiting import limit, wait_until

ROOT = warm.ROOT

#: A machine that stands still for seconds loses no node: losing one is for the tests that say so.
PATIENT = {"GANTRY_NODE_LOST_AFTER_S": "90", "GANTRY_GUARD_MARGIN_S": "10"}
#: Seconds, like the settings of the same names. A lease, too, runs out only where a test wants it to.
QUICK = {
    **PATIENT,
    "GANTRY_LEASE_S": "30",
    "GANTRY_HEARTBEAT_S": "0.5",
    "GANTRY_LOOK_S": "0.3",
    "GANTRY_HANDOVER_S": "1",
    "GANTRY_RECONCILE_S": "0.5",
    "GANTRY_RETRY_BASE_S": "0.2",
    "GANTRY_GRACE_S": "1",
    "GANTRY_CALLBACK_RETRY_BASE_S": "0.3",
    "GANTRY_CALLBACK_LEASE_S": "23",
    "GANTRY_CALLBACK_TIMEOUT_S": "15",
    "GANTRY_LOG_FORMAT": "text",
    "GANTRY_MIN_FREE_MB": "16",
    **warm.AS_INSTALLED,
}


def spare_neighbours(cluster: Cluster) -> None:
    """For a fork bomb: as an ordinary account it would take every process from the tests beside it, too."""
    if os.geteuid() != 0:
        cluster.env["GANTRY_COMMAND_PROCESSES"] = "300"


#: Ports that ``free_port`` gave out, each held until this process ends.
_held: list[socket.socket] = []


def free_port() -> int:
    """A TCP port on loopback that nobody uses, and that nobody is given as long as this process lives.

    It is held by a socket that is bound and does not listen: connections to it are refused, a server with
    SO_REUSEADDR (all of ours) may listen on it, and the kernel gives it to no other process that wants any.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _held.append(probe)
    return int(probe.getsockname()[1])


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until every thread stands: one on another CPU may answer a request after the call."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")

    def states() -> set[str]:
        found: set[str] = set()
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        return found

    wait_until(lambda: states() <= {"T", "t", "Z", "X"}, why=f"process {pid} stands still", see=states)


@dataclass
class Process:
    """A started program with its log."""

    name: str
    popen: warm.Started
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel's out-of-memory killer would."""
        self.popen.kill()
        self.popen.wait(limit(60))

    def terminate(self) -> int:
        """TERM and wait; returns the exit code."""
        self.popen.terminate()
        wait_until(lambda: not self.alive, why=f"{self.name} ends after TERM", see=self.tail)
        return self.popen.wait()

    def freeze(self) -> None:
        freeze(self.pid)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))

    def tail(self) -> str:
        """The end of its log, and how it ended if it has."""
        return f"{self.name}, exit code {self.popen.poll()}:\n{self.text()[-2000:]}"

    def wait_said(self, words: str, timeout_s: float = 60.0) -> None:
        """Wait for words in its log; it may not die meanwhile."""
        wait_until(lambda: words in self.text() or not self.alive, timeout_s, why=words, see=self.tail)
        assert words in self.text(), f"it ended without {words}: {self.tail()}"


@dataclass
class Api(Process):
    """The API server."""

    url: str = ""


@dataclass
class Cluster:
    """The nodes and API processes of one test, each node with a data folder of its own."""

    folder: Path
    base_env: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    #: Programs come from a process that has loaded their libraries (tests.support.warm).
    warm: bool = False
    _count: int = 0

    def node(
        self,
        name: str = "n1",
        *,
        cpus: float = 8,
        mem_mb: int = 16384,
        attributes: str = "",
        wait: bool = True,
        folder: Path | None = None,
        python_path: Path | None = None,
        settings: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        **env: str,
    ) -> Process:
        """Start a worker; ``settings`` and ``env`` add GANTRY_ and other variables.

        ``under`` is a command that executes the one that follows it, e.g. in namespaces of its own.
        """
        env = {**(settings or {}), **env}
        data = folder or self.folder / name
        given = {
            "GANTRY_NODE_NAME": name,
            "GANTRY_NODE_DIR": str(data),
            "GANTRY_NODE_CPUS": str(cpus),
            "GANTRY_NODE_MEM_MB": str(mem_mb),
            "GANTRY_NODE_ATTRIBUTES": attributes,
            **env,
        }
        before = self._incarnation(name)
        process = self._start(
            f"node-{name}",
            [*under, sys.executable, str((python_path or ROOT) / "manage.py"), "node"],
            given,
            python_path or ROOT,
        )
        if wait:
            wait_until(
                lambda: self._incarnation(name) > before or not process.alive,
                why=f"node {name} registers",
                see=process.tail,
            )
            if not process.alive:
                raise AssertionError(f"node {name} ended:\n{process.text()[-3000:]}")
            if env.get("GANTRY_WAIT_BROKER", "1") == "1":
                process.wait_said("broker.back")
        return process

    def api(self, *, workers: int = 1, threads: int = 8, **env: str) -> Api:
        """Start the API on a free port and wait until it answers."""
        port = free_port()
        process = self._start(
            "api",
            [
                *(sys.executable, "-m", "granian"),
                *(
                    "--interface",
                    "asginl",
                    "config.asgi:application",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                ),
                *("--workers", str(workers), "--no-log"),
                # As in service: a TERM that comes while a worker of granian starts is lost on that worker.
                *("--workers-kill-timeout", "20"),
            ],
            {"GANTRY_API_THREADS": str(threads), **env},
            ROOT,
        )
        api = Api(process.name, process.popen, process.log, f"http://127.0.0.1:{port}")
        self.processes[-1] = api

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"{api.url}/healthz", timeout=limit(5)):
                    return True
            except OSError:
                return not api.alive

        wait_until(answers, why="the API answers", see=api.tail)
        assert api.alive, api.text()[-3000:]
        return api

    def callbacks(
        self, name: str = "c1", *, wait: bool = True, settings: Mapping[str, str] | None = None, **env: str
    ) -> Process:
        """Start a process that delivers callbacks; ``settings`` and ``env`` add variables."""
        from workers.models import Deliverer

        def beats() -> datetime | None:
            return Deliverer.objects.filter(name=name).values_list("heartbeat_at", flat=True).first()

        before = beats()
        process = self._start(
            f"callbacks-{name}",
            [sys.executable, "manage.py", "callbacks"],
            {"GANTRY_CALLBACKS_NAME": name, **(settings or {}), **env},
            ROOT,
        )
        if wait:
            wait_until(
                lambda: beats() != before or not process.alive,
                why=f"deliverer {name} beats",
                see=process.tail,
            )
            assert process.alive, process.text()[-3000:]
        return process

    def _start(self, name: str, command: list[str], env: dict[str, str], cwd: Path) -> Process:
        self._count += 1
        log = self.folder / f"{name}.{self._count}.log"
        env = {**self.base_env, **QUICK, "DATABASE_URL": test_database_url(), **self.env, **env}
        popen: warm.Started
        with log.open("wb") as out:
            if self.warm and warm.can_start(command, env, cwd):
                popen = warm.here().start(command, env, cwd, out.fileno())
            else:
                popen = in_a_session(command, env, cwd, out)
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    @staticmethod
    def _incarnation(name: str) -> int:
        from workers.models import Node

        found = Node.objects.filter(name=name).values_list("incarnation", flat=True).first()
        return found or 0

    def stop(self) -> None:
        """Stop every process, and every launcher and run that they left."""
        for process in self.processes:
            if process.alive:
                process.thaw()
            elif Path(f"/proc/{process.pid}").exists():
                continue  # it ended long ago, and its number is by now a stranger's: of another test, perhaps
            # With its group: a killed API server's children would stay. Launchers have sessions of their own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.popen.wait(limit(60))
        wait_until(
            lambda: not kill_under(self.folder),
            why="every launcher and run of the test is gone",
            see=lambda: pids_under(self.folder),
        )

    def logs(self) -> str:
        """The tails of all logs, for a failing assertion."""
        return "\n".join(f"== {process.log.name}\n{process.text()[-4000:]}" for process in self.processes)


def pids_under(folder: Path) -> list[int]:
    """Processes whose command line or working directory is below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            here = ""
            with contextlib.suppress(PermissionError):  # a launcher hides its own from an ordinary user
                here = str((entry / "cwd").readlink())
            status = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if status != "Z" and (str(folder) in command or here.startswith(str(folder))):
                found.append(int(entry.name))
    return found


def kill_under(folder: Path) -> list[int]:
    """KILL the processes below a folder; returns them. Again: one may have started another meanwhile."""
    found = pids_under(folder)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def test_database_url() -> str:
    """The URL of the database that pytest-django made."""
    base = os.environ["DATABASE_URL"]
    return base.rsplit("/", 1)[0] + "/" + str(connection.settings_dict["NAME"])


test_database_url.__test__ = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def frozen(process: Process) -> Iterator[None]:
    """The process stands still inside the block."""
    process.freeze()
    try:
        yield
    finally:
        process.thaw()
