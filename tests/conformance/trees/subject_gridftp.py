"""GridFTP: Globus' server, which lets anybody in. With certificates: test_gridftp.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.conformance.trees.subjects import SITE, FolderSubject
from tests.support.disk import apart
from tests.support.gridftp import NOBODY, DataWire, GridFtp, hand_over, open_folder
from tests.support.proxy import Proxy
from workers.vocabulary.transfers.reach import Protocol, Reach


class GridFtpSubject(FolderSubject):
    id = "gridftp"
    protocol = Protocol.GRIDFTP
    asks = False
    #: Its lists leave out links that lead nowhere; what else is to say of links: test_gridftp.py.
    links = False
    #: It resets the data's connection, and the library often tells of that before the reply is here.
    says_full = False

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

    def wire(self) -> Proxy:
        return DataWire(("127.0.0.1", self.server.port))

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        folder = self._open / "small"
        folder.mkdir()
        other = GridFtp(self.home)
        other.under = apart(folder, size_mb, (NOBODY, NOBODY))
        try:
            other.start()
            yield replace(self.reach(), port=other.port, path=str(folder))
        finally:
            other.kill()

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
