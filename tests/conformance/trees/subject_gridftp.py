"""GridFTP: Globus' server, for anybody and for holders of a proxy certificate."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from tests.conformance.trees.subjects import SITE, FolderSubject
from tests.support.gridftp import NOBODY, Authority, GridFtp
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach


class _GridFtpSubject(FolderSubject):
    protocol = Protocol.GRIDFTP
    #: Its lists leave out links that lead nowhere; what else is to say of links: test_gridftp.py.
    links = False
    secure: ClassVar[bool]

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        # pytest's folders are closed to the account that the server becomes.
        self._open = Path(tempfile.mkdtemp(prefix="gantry-gridftp-"))
        self._open.chmod(0o755)
        shutil.move(self.root, self._open / "root")
        self.root = self._open / "root"
        for path in (self.root, self.root / SITE, self.root / "outside"):
            _hand_over(os.fsencode(path))
        self.authority = Authority(home) if self.secure else None
        self.server = GridFtp(home, self.authority)

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._open)

    def reach(self) -> Reach:
        return Reach(
            protocol=Protocol.GRIDFTP,
            host="localhost",
            port=self.server.port,
            path=str(self.root / SITE),
            site="grid",
            guarded=False,
            cas=(self.authority.pem,) if self.authority else (),
            credentials=Credentials(proxy=self.authority.proxy() if self.authority else ""),
        )

    def holds(self, name: bytes) -> bool:
        """Globus' server drops what is not ASCII in a name, and the protocol has lines."""
        return name.isascii() and b"\n" not in name

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        super().put(path, content, mtime=mtime)
        _hand_over(self.real(path))

    def folder(self, path: bytes) -> None:
        super().folder(path)
        while path != b"/":
            _hand_over(self.real(path))
            path = path.rpartition(b"/")[0] or b"/"


class AnonymousGridFtp(_GridFtpSubject):
    id = "gridftp"
    secure = False
    asks = False


class SecureGridFtp(_GridFtpSubject):
    id = "gsiftp"
    secure = True

    def stranger(self) -> Reach:
        """Somebody whom the authority knows and the server does not."""
        assert self.authority is not None
        reach = self.reach().to_json()
        return Reach.from_json({**reach, "credentials": {"proxy": self.authority.proxy("stranger")}})


def _hand_over(path: bytes) -> None:
    """To the account that the server becomes."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
