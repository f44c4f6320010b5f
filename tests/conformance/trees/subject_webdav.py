"""WEBDAV: two servers that share no code, one by https with an authority of the site's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from django.test import override_settings

from tests.conformance.trees.subjects import SECRET, SITE, FolderSubject
from tests.support.kubernetes import certificate
from tests.support.webdav import PASSWORD, USER, RcloneDav, Served, Wsgidav
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

    def holds(self, name: bytes) -> bool:
        try:
            name.decode()
        except UnicodeDecodeError:
            return False
        return True


class WsgidavSubject(_DavSubject):
    id = "wsgidav"

    def made(self) -> Served:
        self._authority = certificate(self.home)[1]
        file = self.home / "server.pem"
        return Wsgidav(self.root, self.home / "server.log", (file, file))

    def reach(self) -> Reach:
        return replace(super().reach(), options={}, cas=(self._authority,))


class RcloneDavSubject(_DavSubject):
    id = "rclone-webdav"

    def made(self) -> Served:
        return RcloneDav(self.root, self.home / "server.log")
