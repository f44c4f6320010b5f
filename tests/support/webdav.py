"""A WebDAV server of the tests' own in a process: wsgidav on cheroot.

It serves a folder, asks for a name and a password, and may do no more with files than their owner may: as
root, too, it runs without the capabilities that look past permissions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from tests.support.cluster import free_port
from tests.support.waiting import limit, wait_until

_SCRIPT = Path(__file__).with_name("webdav_service.py")

USER = "tester"
PASSWORD = "testing"
_PLAIN_ROOT = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)


class Served:
    """A server in a process that serves ``folder`` on a port of its own, the same after each start."""

    name: ClassVar[str]

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._log = log
        #: What comes before its command.
        self.under: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it listens."""
        command = [*self.under, *(_PLAIN_ROOT if os.geteuid() == 0 else ()), *self.command()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, why=f"{self.name} listens", see=lambda: self._log.read_text()[-2000:])

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        with socket.socket() as probe:
            probe.settimeout(limit(5))
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """Kill it: connections are cut."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(limit(30))


class Wsgidav(Served):
    """``closed``: a file that may come and go and holds a path nobody may go to. ``certificate``: files (PEM)
    of a certificate and its key; then it speaks https only."""

    name = "wsgidav"

    def __init__(
        self, folder: Path, log: Path, closed: Path, certificate: tuple[Path, Path] | None = None
    ) -> None:
        super().__init__(folder, log)
        self._closed = closed
        self._certificate = certificate

    def command(self) -> list[str]:
        more = [str(file) for file in self._certificate or ()]
        given = [str(self.folder), str(self.port), USER, PASSWORD, str(self._closed), *more]
        return [sys.executable, str(_SCRIPT), *given]
