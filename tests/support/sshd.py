"""An OpenSSH server of the tests' own on loopback, run by an ordinary account: its files are on this machine.

Root becomes ``daemon`` for it, so that permissions mean something (``nobody`` is a locked account where
systemd answers for it); everybody else logs in as themselves. It has host keys of its own and knows no
passwords: those are for root to check.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.disk import apart
from tests.support.proxy import Proxy
from tests.support.waiting import limit, wait_until
from workers.vocabulary.transfers.reach import Credentials, Reach

_SERVER = "/usr/sbin/sshd"
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
{host_keys}
PidFile none
AuthorizedKeysFile {folder}/client.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
MaxStartups 200
LogLevel VERBOSE
Subsystem sftp internal-sftp -d {home} {more}
"""


class Sshd:
    """``files`` is the folder that sites begin at, ``home`` the account's; both can be read and written."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gantry-sshd-"))
        self.files, self.home = self.folder / "files", self.folder / "home"
        self._kind = "ed25519"
        self._process: subprocess.Popen[bytes] | None = None
        account = pwd.getpwnam("daemon") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.user, self._uid, self._gid = account.pw_name, account.pw_uid, account.pw_gid
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        for folder in (self.files, self.home):
            folder.mkdir()
        for name, kind in (("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("client", "ed25519")):
            _make_key(self.folder / name, kind)
        self.give(self.folder, *self.folder.iterdir())

    def give(self, *paths: Path | bytes) -> None:
        """To the account that the server runs as."""
        for path in paths:
            os.lchown(path, self._uid, self._gid)

    def start(self, *kinds: str, more: str = "", disk_mb: int = 0) -> None:
        """Start it, after ``stop`` on the same port; with these of its host keys (ed25519, ecdsa), ``more``
        options of sftp-server, ``files`` on a disk of that size which only it can see."""
        self._kind = (kinds or ("ed25519",))[0]
        keys = "\n".join(f"HostKey {self.folder}/host_{kind}" for kind in kinds or ("ed25519",))
        text = _CONFIG.format(port=self.port, folder=self.folder, home=self.home, host_keys=keys, more=more)
        (self.folder / "config").write_text(text)
        command = [_SERVER, "-D", "-e", "-f", str(self.folder / "config")]
        if os.geteuid() == 0:
            becoming = ["setpriv", f"--reuid={self._uid}", f"--regid={self._gid}", "--clear-groups"]
            command = [*becoming, "--inh-caps=-all", *command]
        if disk_mb:
            command = [*apart(self.files, disk_mb, (self._uid, self._gid)), *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._listens, every_s=0.01, why="sshd listens", see=self.log)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """It and all that serve its connections."""
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._process.pid, *(c.pid for c in psutil.Process(self._process.pid).children(True))]
        return []

    def _signal(self, number: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Kill it and all that serve its connections."""
        process = self._process
        if process is not None:
            self._signal(signal.SIGSTOP)  # so that nobody is born meanwhile
            self._signal(signal.SIGKILL)
            process.wait(limit(30))
        self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its processes stand still: connections are taken and nothing comes back."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    # --- who reaches it, and how ------------------------------------------------------------------------

    @property
    def host_key(self) -> str:
        """``type base64`` of the key that it has now."""
        return " ".join((self.folder / f"host_{self._kind}.pub").read_text().split()[:2])

    def reach(self, proxy: Proxy | None = None, **other: Any) -> Reach:
        """``files``, as the account that the server runs as; by way of ``proxy`` if there is one."""
        known = Credentials(username=self.user, key=(self.folder / "client").read_text())
        given = {
            "protocol": "SFTP",
            "host": "127.0.0.1",
            "port": proxy.port if proxy else self.port,
            "path": str(self.files),
            "host_keys": (self.host_key,),
            "guarded": False,
            "credentials": known,
        }
        return Reach(**{**given, **other})

    @contextmanager
    def through(self) -> Iterator[Proxy]:
        """A network that can break before it."""
        with Proxy(("127.0.0.1", self.port)) as proxy:
            yield proxy


def _make_key(path: Path, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)


@contextmanager
def running() -> Iterator[Sshd]:
    """One that is removed at the end."""
    made = Sshd()
    try:
        made.start()
        yield made
    finally:
        made.remove()
