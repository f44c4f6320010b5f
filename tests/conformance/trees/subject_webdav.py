"""WEBDAV: wsgidav, by https with an authority of the site's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from django.test import override_settings

from tests.conformance.trees.subjects import SECRET, SITE, FolderSubject
from tests.support.disk import apart
from tests.support.kubernetes import certificate
from tests.support.webdav import PASSWORD, USER, Served, Wsgidav
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach


class _DavSubject(FolderSubject):
    protocol = Protocol.WEBDAV

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._settings = override_settings(GANTRY_SITE_ALLOW_NETWORKS=["127.0.0.0/8"])
        self.server: Served = self.made()

    def made(self) -> Served:
        raise NotImplementedError

    def start(self) -> None:
        self._settings.enable()
        self.server.start()

    def kill(self) -> None:
        self.server.stop()

    def stop(self) -> None:
        self.server.stop()
        self._settings.disable()

    def reach(self) -> Reach:
        return Reach(
            protocol=Protocol.WEBDAV,
            host="127.0.0.1",
            port=self.server.port,
            path=f"/{SITE}",
            site="dav",
            options={"scheme": "http"},
            credentials=Credentials(username=USER, password=PASSWORD),
        )

    def stranger(self) -> Reach:
        return replace(self.reach(), credentials=Credentials(username=USER, password=SECRET))

    #: Characters that the server does not leave as they are.
    stumbles: ClassVar[bytes]

    def holds(self, name: bytes) -> bool:
        try:
            name.decode()
        except UnicodeDecodeError:
            return False
        return not set(name) & set(self.stumbles)


class WsgidavSubject(_DavSubject):
    """It reads a Destination as a URL after it has decoded it."""

    id = "wsgidav"
    #: It answers 500.
    says_full = False
    sealed = True
    stumbles = b"?;\n\r\t"

    def made(self) -> Served:
        self._authority = certificate(self.home)[1]
        file = self.home / "server.pem"
        self._closed = self.home / "closed"
        return Wsgidav(self.root, self.home / "server.log", self._closed, (file, file))

    @contextmanager
    def forbidden(self, path: bytes) -> Iterator[None]:
        """By a rule of the server: of what it cannot open itself it says that it is not there."""
        self._closed.write_bytes(f"/{SITE}".encode() + path)
        try:
            yield
        finally:
            self._closed.unlink()

    def reach(self) -> Reach:
        return replace(super().reach(), options={}, cas=(self._authority,))

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        """In the clear."""
        folder = self.home / "small"
        folder.mkdir()
        other = Wsgidav(folder, self.home / "small.log", self._closed)
        other.under = apart(folder, size_mb)
        try:
            other.start()
            yield replace(super().reach(), port=other.port, path="/")
        finally:
            other.stop()
