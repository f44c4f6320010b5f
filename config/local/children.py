"""A child process of the supervisor: its command, its log file, its restarts, its end.

A child gets TERM when the supervisor dies, so that none is left behind unseen. Must not import Django or
any app.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.local.data import REPOSITORY
from config.local.processes import in_a_session, program_on_path, tail

#: A child that ran this long has recovered: its next restart is immediate again.
RECOVERED_S = 60.0
LONGEST_BACKOFF_S = 30.0
LOG_LIMIT = 32 * 1024 * 1024


@dataclass
class Child:
    """One child. `own_group`: its process group holds its own workers only, and is ended with it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    #: Seconds from TERM to KILL.
    grace: float
    own_group: bool
    failures: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _next_start: float = field(default=0.0)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Starts the child in its own session: a Ctrl-C is the supervisor's to pass on, in order."""
        # The kernel clears this at no exec of ours, so it holds for the child itself.
        setpriv = program_on_path("setpriv")
        prefix = [str(setpriv), "--pdeathsig", "TERM", "--"] if setpriv else []
        with self.log.open("ab") as output:
            self.log.chmod(0o600)
            self._process = in_a_session([*prefix, *self.command], self.environment, REPOSITORY, output)
        self._started = time.monotonic()

    def look(self) -> str | None:
        """Restarts the child when it is due; a sentence when it has just ended or is started again."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._next_start:
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        ran = now - self._started
        self._end_group()
        self._process = None
        self.failures = 1 if ran > RECOVERED_S else self.failures + 1
        wait = min(LONGEST_BACKOFF_S, 0.5 * 2 ** (self.failures - 1))
        self._next_start = now + wait
        last = tail(self.log, 1).strip()
        last = last if len(last) <= 200 else f"... {last[-200:]}"
        return f"{ending(code)} after {ran:.0f} s, starts again in {wait:g} s; the end of {self.log}: {last}"

    def ask_to_end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def end_now(self) -> None:
        """KILL for one that did not end when asked. Never a group that could hold others' processes."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._end_group()
        self._process = None

    def _end_group(self) -> None:
        """What a child that was killed left of its own workers, which would keep its port."""
        if self._process is None or not self.own_group:
            return
        if Path(f"/proc/{self._process.pid}").exists():
            return  # the child has been collected: whoever has its number by now is a stranger
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


def rotate_when_long(log: Path) -> None:
    """Keeps one older log; whoever writes goes on writing to the same file, at its end (O_APPEND)."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        shutil.copyfile(log, older := log.with_name(f"{log.name}.1"))
        older.chmod(0o600)
        os.truncate(log, 0)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
