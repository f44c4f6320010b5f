"""SFTP: an OpenSSH server that an ordinary account runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.trees.subjects import SECRET, SITE, FolderSubject
from tests.support.sshd import Sshd
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach


class SftpSubject(FolderSubject):
    id = "sftp"
    protocol = Protocol.SFTP
    links = True
    sealed = True

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.sshd = Sshd()
        # Where the server's account may come.
        self.root = self.sshd.files
        for name in (SITE, "outside"):
            (self.root / name).mkdir()
            self.sshd.give(self.root / name)

    def start(self) -> None:
        self.sshd.start()

    def stop(self) -> None:
        self.sshd.remove()

    def kill(self) -> None:
        self.sshd.stop()

    def reach(self) -> Reach:
        return self.sshd.reach(path=str(self.root / SITE))

    def stranger(self) -> Reach:
        return self.sshd.reach(credentials=Credentials(username=self.sshd.user, password=SECRET))

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        other = Sshd()
        try:
            other.start(disk_mb=size_mb)
            yield other.reach()
        finally:
            other.remove()

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        super().put(path, content, mtime=mtime)
        self.sshd.give(self.real(path))

    def folder(self, path: bytes) -> None:
        super().folder(path)
        parts = path.strip(b"/").split(b"/")
        self.sshd.give(*(self.real(b"/" + b"/".join(parts[: n + 1])) for n in range(len(parts))))

    def link(self, path: bytes, to: bytes) -> None:
        super().link(path, to)
        self.sshd.give(self.real(path))
