"""XROOTD: Debian's xrootd-server. A name with "?" or a newline, or one that is not UTF-8, it cannot hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conformance.trees.subjects import SITE, FolderSubject
from tests.support.disk import apart
from tests.support.xrootd import Xrootd
from workers.vocabulary.transfers.reach import Protocol, Reach


class XrootdSubject(FolderSubject):
    id = "xrootd"
    protocol = Protocol.XROOTD
    #: As it is started here: who comes is the server's own account.
    asks = False

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.server = Xrootd(home / "server", self.root)

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.kill()

    def kill(self) -> None:
        self.server.kill()

    def reach(self) -> Reach:
        return self.server.reach(f"/{SITE}")

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        files = self.home / "small"
        other = Xrootd(self.home / "other", files)
        other.under = apart(files, size_mb)
        try:
            other.start()
            yield other.reach()
        finally:
            other.kill()

    def holds(self, name: bytes) -> bool:
        try:
            return not set("?\n") & set(name.decode())
        except UnicodeDecodeError:
            return False

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        """A new file: what the server has kept of an old one's checksum would be good for this second."""
        with suppress(FileNotFoundError):
            os.unlink(self.real(path))  # noqa: PTH108 - names are bytes
        super().put(path, content, mtime=mtime)
