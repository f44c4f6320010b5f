"""GridFTP: Globus' server, which lets anybody in. With certificates: test_gridftp.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.conformance.trees.subjects import SITE, FolderSubject
from tests.support.gridftp import GridFtp, hand_over, open_folder
from workers.vocabulary.transfers.reach import Protocol, Reach


class GridFtpSubject(FolderSubject):
    id = "gridftp"
    protocol = Protocol.GRIDFTP
    asks = False
    #: Its lists leave out links that lead nowhere; what else is to say of links: test_gridftp.py.
    links = False

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._open = open_folder()
        self.root = Path(shutil.move(self.root, self._open / "root"))
        for path in (self.root, self.root / SITE, self.root / "outside"):
            hand_over(os.fsencode(path))
        self.server = GridFtp(home)

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
        )

    def holds(self, name: bytes) -> bool:
        """In clear, Globus' server drops what is not ASCII in a name; and the protocol has lines."""
        return name.isascii() and b"\n" not in name

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        super().put(path, content, mtime=mtime)
        hand_over(self.real(path))

    def folder(self, path: bytes) -> None:
        super().folder(path)
        while path != b"/":
            hand_over(self.real(path))
            path = path.rpartition(b"/")[0] or b"/"
