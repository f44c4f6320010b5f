"""SWIFT: PyPI's swift, with its own authentication. It holds whatever is UTF-8."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from django.test import override_settings

from tests.conformance.trees.subjects import SECRET, Subject
from tests.support.proxy import Proxy
from tests.support.swift import KEY, Swift, started
from tests.support.waiting import limit
from workers.vocabulary.transfers.reach import Credentials, Protocol, Reach

_ROOT = "trees"
_SITE = "site"
_FOLDER = "application/directory"


class SwiftSubject(Subject):
    id = "swift"
    protocol = Protocol.SWIFT
    #: Containers are open or closed, folders are names.
    forbids = False
    many = 30
    #: Less what is before it in the name of the object, see ``reach``.
    name_max = 1000

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.server: Swift | None = None
        self._client: httpx.Client | None = None
        self._settings = override_settings(GANTRY_SWIFT_SEGMENT_MB=1, GANTRY_SWIFT_ALLOW_NETWORKS=[])

    def start(self) -> None:
        if self.server is None:
            self._settings.enable()
            self.server = started(self.home / "swift")
            assert self._swift.api("PUT", f"/{_ROOT}").status_code == 201
        else:
            self.server.start()

    def stop(self) -> None:
        self._settings.disable()
        self._forget()
        self._swift.stop()

    def kill(self) -> None:
        self._forget()
        self._swift.stop()

    @property
    def _swift(self) -> Swift:
        assert self.server is not None
        return self.server

    def reach(self) -> Reach:
        return Reach(
            protocol=Protocol.SWIFT,
            host="127.0.0.1",
            port=self._swift.port,
            path=f"/{_ROOT}/{_SITE}",
            options={"auth_url": f"{self._swift.url}/auth/v1.0"},
            guarded=False,
            credentials=Credentials(username="test:tester", password=KEY),
        )

    def by_way_of(self, wire: Proxy) -> Reach:
        """Where what is kept is, the answer to a login tells, by the name that it was asked under."""
        options = {"auth_url": f"http://127.0.0.1:{wire.port}/auth/v1.0"}
        return replace(super().by_way_of(wire), options=options)

    def stranger(self) -> Reach:
        return replace(self.reach(), credentials=Credentials(username="test:tester", password=SECRET))

    @contextmanager
    def small(self, size_mb: int) -> Iterator[Reach]:
        """By quotas of its containers; for segments one that holds none: how much there is already Swift asks
        its memory, which here forgets nothing."""
        for name, most in (("small", size_mb << 20), ("small_segments", 1 << 19)):
            quota = {"X-Container-Meta-Quota-Bytes": str(most)}
            assert self._ask("PUT", f"/{name}", headers=quota).status_code in (201, 202)
        yield replace(self.reach(), path="/small")

    def holds(self, name: bytes) -> bool:
        try:
            name.decode()
        except UnicodeDecodeError:
            return False
        return True

    def put(self, path: bytes, content: bytes, *, mtime: int | None = None) -> None:
        headers = {} if mtime is None else {"X-Object-Meta-Mtime": str(mtime)}
        self._put(self._url(path), content, headers)

    def get(self, path: bytes) -> bytes | None:
        answer = self._ask("GET", f"/{self._url(path)}")
        return answer.content if answer.status_code == 200 else None

    def names(self, folder: bytes) -> set[bytes]:
        prefix = self._name(folder) + "/"
        found = {
            name.removeprefix(prefix).partition("/")[0]
            for name in self._names(_ROOT, prefix)
            if name.startswith(prefix) and name != prefix
        }
        segments = {
            name.removeprefix(prefix)
            for name in self._names(f"{_ROOT}_segments", prefix)
            if name.startswith(prefix) and "/" not in name.removeprefix(prefix).partition("/.gantry/")[0]
        }
        # Of a file that is whole they are its content.
        return {name.encode() for name in found | {each for each in segments if not self._used(prefix, each)}}

    def folder(self, path: bytes) -> None:
        self._put(f"{self._url(path)}/", b"", {"Content-Type": _FOLDER})
        # A name is that of the whole object.
        type(self).name_max = 1024 - len(f"{self._name(path)}/".encode())

    def mark(self, path: bytes) -> None:
        """A folder as other tools mark it: without a slash."""
        self._put(self._url(path), b"", {"Content-Type": _FOLDER})

    def put_object(self, name: str, content: bytes) -> None:
        """Of any name, below the site."""
        self._put(f"{_ROOT}/{_SITE}{quote(name)}", content, {})

    def segments(self, folder: bytes) -> list[str]:
        return self._names(f"{_ROOT}_segments", self._name(folder) + "/")

    def is_folder(self, path: bytes) -> bool:
        prefix = self._name(path) + "/"
        return bool(self._names(_ROOT, prefix))

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """As the account, with one connection and one token for as long as the server lives."""
        if self._client is None:
            answer = self._swift.ask(
                "GET", "/auth/v1.0", headers={"X-Auth-User": "test:tester", "X-Auth-Key": KEY}
            ).raise_for_status()
            self._client = httpx.Client(
                base_url=answer.headers["X-Storage-Url"],
                headers={"X-Auth-Token": answer.headers["X-Auth-Token"]},
                trust_env=False,
                timeout=limit(60),
            )
        return self._client.request(method, str(self._client.base_url).rstrip("/") + path, **more)

    def _put(self, url: str, content: bytes, headers: dict[str, str]) -> None:
        answer = self._ask("PUT", f"/{url}", content=content, headers=headers)
        assert answer.status_code == 201, answer.text

    def _names(self, container: str, prefix: str) -> list[str]:
        answer = self._ask("GET", f"/{container}?format=json&prefix={quote(prefix)}")
        return [entry["name"] for entry in answer.json()] if answer.status_code == 200 else []

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _used(self, prefix: str, segment: str) -> bool:
        name = segment.partition("/.gantry/")[0]
        answer = self._ask("GET", f"/{_ROOT}/{quote(prefix + name)}?multipart-manifest=get")
        if answer.status_code != 200 or "X-Static-Large-Object" not in answer.headers:
            return False
        return any(each["name"] == f"/{_ROOT}_segments/{prefix}{segment}" for each in answer.json())

    def _name(self, path: bytes) -> str:
        words: list[str] = []
        for word in itertools.chain([_SITE], path.decode().split("/")):
            if word == "..":
                words.pop()
            elif word:
                words.append(word)
        return "/".join(words)

    def _url(self, path: bytes) -> str:
        return f"{_ROOT}/{quote(self._name(path))}"
