"""A child process of the supervisor: its command, its log file, its restarts, its end.

A child gets TERM when the supervisor dies, so that none is left behind unseen. Must not import Django or
any app.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.local.data import REPOSITORY
from config.local.processes import in_a_session, program_on_path

#: A child that ran this long has recovered: its next restart is immediate again.
RECOVERED_S = 60.0
LONGEST_BACKOFF_S = 30.0
LOG_LIMIT = 32 * 1024 * 1024
#: What ``look`` says when a child that ended has been started again.
STARTED_AGAIN = "started again"
#: How much of a log's end is searched for the reason of an end, in bytes.
_WORDS = 64 * 1024
#: Lines of a log that tell of work, as JSON, as text and as Flower, Celery and the API's server write them.
_ROUTINE = re.compile(r"""(?i)"level": ?"(debug|info|warning)"|\[ *(debug|info|warning)\b|^\[[DIW] \d""")


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
    #: Where in its log its own begins.
    _from: int = 0

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
            self._from = output.tell()
            self._process = in_a_session([*prefix, *self.command], self.environment, REPOSITORY, output)
        self._started = time.monotonic()

    def look(self) -> str | None:
        """Restarts the child when it is due; a sentence when it has just ended or is started again."""
        now = time.monotonic()
        if self._process is None:
            if now < self._next_start:
                return None
            self.start()
            return STARTED_AGAIN
        code = self._process.poll()
        if code is None:
            return None
        ran = now - self._started
        self._end_group()
        self._process = None
        self.failures = 1 if ran > RECOVERED_S else self.failures + 1
        wait = min(LONGEST_BACKOFF_S, 0.5 * 2 ** (self.failures - 1))
        self._next_start = now + wait
        told = f"{ending(code)} after {ran:.0f} s, starts again in {wait:g} s; see {self.log}"
        cause = self._last_words() if code > 0 else ""
        return f"{told}: {cause}" if cause else told

    def _last_words(self) -> str:
        """The last line that it wrote and that may say why it ended; what it told of its work does not."""
        try:
            with self.log.open("rb") as log:
                size = self.log.stat().st_size
                own = self._from if self._from <= size else 0  # it was rotated since
                log.seek(max(own, size - _WORDS))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        wrote = [line.strip() for line in lines if line.strip() and not _ROUTINE.search(line)]
        last = wrote[-1] if wrote else ""
        return last if len(last) <= 200 else f"... {last[-200:]}"

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
