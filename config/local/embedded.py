"""What the embedded servers have in common: start once, find again, recover, stop, kill.

A server runs detached in a folder of its own and holds that folder's lock as long as it lives. Must not
import Django or any other part of the project but config.local.processes.
"""

from __future__ import annotations

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

from config.local.errors import LocalError
from config.local.processes import (
    account_for,
    folder_lock,
    is_locked,
    kept_secret,
    private_folder,
    program_environment,
    spawn_detached,
    tail,
)
from config.local.running import POLL_S, kill_and_wait, processes_in, send

START_S = 60.0
STOP_S = 60.0
Stop = Literal["fast", "immediate"]


class EmbeddedServer(ABC):
    """A server in a folder of its own. Any process of the same account may call any method at any time."""

    title: ClassVar[str]
    #: The program's names as the kernel may show it.
    programs: ClassVar[frozenset[str]]
    #: Signals that the server takes for "finish cleanly" and for "stop now".
    stop_signals: ClassVar[dict[Stop, signal.Signals]]
    #: Where the unix socket is: 0700, in the server's folder or, for a long path, below /tmp/gantry-<uid>.
    sockets: Path

    def __init__(self, folder: Path | str, *, port: int | None = None) -> None:
        """`port`: also listen there on 127.0.0.1 (tests put a proxy in between); None means no TCP at all."""
        self.folder = Path(folder).resolve()
        self.port = port
        self.account = account_for(self.folder)
        private_folder(self.folder, self.account)
        self.log = self.folder / "server.log"
        self._lock = self.folder / "lock"

    # --- what differs ---

    @property
    @abstractmethod
    def url(self) -> str:
        """Address and password, in the form of DATABASE_URL or REDIS_URL."""

    @property
    @abstractmethod
    def working_folder(self) -> Path:
        """The server's working directory: how its processes are recognised."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """Part of the main process' arguments: how it is recognised where its directory may not be read."""

    @abstractmethod
    def _answers(self) -> bool:
        """True when a client can log in and be served."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Makes what must exist before a start, repairs what a crash left; returns the command."""

    # --- what is the same ---

    @property
    def password(self) -> str:
        return kept_secret(self.folder / "password")

    @property
    def pids(self) -> list[int]:
        """The server's processes, the first started first."""
        return processes_in(self.working_folder, self.programs, self.mark)

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The main process, or None when it does not run."""

    @property
    def running(self) -> bool:
        return self.pid is not None

    def start(self, timeout: float = START_S) -> None:
        """Starts the server and waits until it serves. One that runs already is used as it is.

        Safe when several callers do it at once. What a kill or a power cut left is cleared up first.
        """
        deadline = time.monotonic() + timeout
        with folder_lock(self._lock, deadline, lambda: self.running and self._answers()) as lock:
            if lock is None:
                return
            kill_and_wait(lambda: self.pids, deadline)
            if self.log.exists() and self.log.stat().st_size > 16 * 1024 * 1024:
                self.log.rename(self.log.with_suffix(".log.1"))
            self._check_reachable(self.folder)
            command = self._prepare()
            self._check_reachable(Path(command[0]))
            spawn_detached(
                command, account=self.account, log=self.log, keep_open=lock, environment=program_environment()
            )
        while not self._answers():
            if not is_locked(self._lock):
                raise LocalError(
                    f"{self.title} ended at its start; its log {self.log} says:\n{tail(self.log)}"
                )
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{self.title} does not answer {timeout:.0f} s after its start; its log {self.log} says:"
                    f"\n{tail(self.log)}"
                )
            time.sleep(POLL_S)

    def stop(self, how: Stop = "fast", timeout: float = STOP_S) -> None:
        """Stops the server and waits for its end. fast: cleanly; immediate: recovery at the next start."""
        deadline = time.monotonic() + timeout
        if (pid := self.pid) is not None:
            send(pid, self.stop_signals[how])
            send(pid, signal.SIGCONT)  # a frozen process takes the other signal after this one
            while self.pids and time.monotonic() < deadline:
                time.sleep(POLL_S)
        # What remains has lost its main process, or does not end when asked.
        kill_and_wait(lambda: self.pids, time.monotonic() + STOP_S)

    def kill(self, timeout: float = STOP_S) -> None:
        """kill -9 of the main process, as a test of what comes after; waits until it is gone."""
        kill_and_wait(lambda: [pid] if (pid := self.pid) is not None else [], time.monotonic() + timeout)

    def _check_reachable(self, path: Path) -> None:
        """Says in words what would else be a server's "Permission denied"."""
        if not (arguments := self.account.popen_arguments()):
            return
        allowed = subprocess.run(
            ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)],
            check=False,
            **arguments,  # type: ignore[call-overload]
        )
        if allowed.returncode != 0:
            raise LocalError(
                f"{self.title} runs as uid {self.account.uid} here, and that account cannot reach {path}: "
                "put it where every folder above it is open to others (chmod o+x), not below a private home"
            )
