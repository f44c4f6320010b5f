"""An XRootD server of the tests' own on loopback (Debian's xrootd-server), run by an ordinary account.

It refuses to run as root: root becomes an ordinary user in a user namespace, which owns root's files and may
do to them what their modes say, no more. It knows adler32 and md5, and asks nobody who they are.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.waiting import limit, wait_until
from workers.vocabulary.transfers.reach import Reach

_CONFIG = """
all.export /
oss.localroot {files}
all.adminpath {folder}/admin
all.pidpath {folder}/admin
xrd.port {port}
xrd.network nodnr
xrootd.chksum max 4 adler32 md5
{more}
"""


class Xrootd:
    """``files`` is what it serves; ``more`` are further lines of its configuration."""

    def __init__(self, folder: Path, files: Path, more: str = "") -> None:
        self.folder, self.files = folder, files
        for each in (folder / "admin", files):
            each.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        (folder / "config").write_text(
            _CONFIG.format(files=files, folder=folder, port=self.port, more=more.format(folder=folder))
        )
        self._process: subprocess.Popen[bytes] | None = None
        #: What comes before its command.
        self.under: list[str] = []

    def start(self) -> None:
        """After ``kill`` on the same port."""
        program = shutil.which("xrootd")
        assert program, "apt install xrootd-server"
        command = [program, "-c", str(self.folder / "config"), "-n", "tests", "-l", str(self.folder / "log")]
        if os.geteuid() == 0:
            command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
        command = [*self.under, *command]
        with (self.folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(self._answers, why="xrootd listens")

    def kill(self) -> None:
        """At once; connections are cut."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(limit(30))

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def reach(self, path: str = "/", *, port: int = 0, **more: object) -> Reach:
        """A site of an operator's that begins at ``path``."""
        return Reach.from_json(
            {
                "protocol": "XROOTD",
                "host": "127.0.0.1",
                "port": port or self.port,
                "path": path,
                "guarded": False,
                **more,
            }
        )

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "out").read_text()[-2000:]
        with socket.socket() as probe:
            probe.settimeout(limit(5))
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
