"""S3: Swift's own s3api."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from django.test import override_settings

from tests.conformance.trees.subjects import SECRET, SITE, Subject
from tests.support.s3 import KEY, Bucket
from tests.support.s3 import SECRET as GOOD
from tests.support.swift import Swift
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach


class SwiftS3Subject(Subject):
    id = "swift-s3"
    protocol = Protocol.S3
    forbids = False
    name_max = 1024 - len(f"{SITE}/t0000/")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._settings = override_settings(GANTRY_SITE_ALLOW_NETWORKS=["127.0.0.0/8"])
        self._swift = Swift(home / "swift")
        self._made = False

    def start(self) -> None:
        self._settings.enable()
        self._swift.start()
        if not self._made:
            self.bucket = Bucket(self._swift.port, "bucket")
            self.bucket.make()
            self._made = True

    def kill(self) -> None:
        self._swift.stop()

    def stop(self) -> None:
        self._swift.stop()
        self._settings.disable()

    @property
    def port(self) -> int:
        return self._swift.port

    def reach(self) -> Reach:
        return Reach(
            protocol=Protocol.S3,
            host="127.0.0.1",
            port=self.port,
            path=f"bucket/{SITE}",
            site="store",
            options={"scheme": "http"},
            credentials=Credentials(username=KEY, password=GOOD),
        )

    def stranger(self) -> Reach:
        return replace(self.reach(), credentials=Credentials(username=KEY, password=SECRET))

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        """By a quota of the bucket, which is a container of Swift's."""
        Bucket(self.port, "small").make()
        quota = {"X-Container-Meta-Quota-Bytes": str(size_mb << 20)}
        assert self._swift.api("POST", "/small", headers=quota).status_code == 204
        yield replace(self.reach(), path="small")

    def holds(self, name: bytes) -> bool:
        try:
            name.decode()
        except UnicodeDecodeError:
            return False
        return True

    # --- the server's side --------------------------------------------------------------------------------

    def _key(self, path: bytes) -> str:
        words: list[str] = [SITE]
        for word in path.decode().split("/"):
            if word == "..":
                words.pop()
            elif word:
                words.append(word)
        return "/".join(words)

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        self.bucket.put(self._key(path), content)

    def get(self, path: bytes) -> bytes | None:
        return self.bucket.get(self._key(path))

    def names(self, folder: bytes) -> set[bytes]:
        start = self._key(folder) + "/"
        keys = [*self.bucket.keys(start), *(f"{key} (upload)" for key in self.bucket.uploads(start))]
        return {key[len(start) :].partition("/")[0].encode() for key in keys if key != start}

    def folder(self, path: bytes) -> None:
        words = self._key(path).split("/")
        for count in range(2, len(words) + 1):
            key = "/".join(words[:count]) + "/"
            if not self.bucket.keys(key):
                self.bucket.put(key, b"")

    def is_folder(self, path: bytes) -> bool:
        return bool(self.bucket.keys(self._key(path) + "/"))
