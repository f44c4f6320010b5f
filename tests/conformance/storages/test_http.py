"""Files behind http(s) addresses: what can be read, from where, and what is said when it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from pytest_django import Settings

from tests.conformance.storages.subjects import MIB, fails, read
from tests.support.waiting import limit
from tests.unit.addresses.web_server import Server, hang, plain, redirect
from workers.storage.base import Storage, StorageFailed, Trouble, Upload
from workers.storage.opening import open_storage, path_of

CONTENT = os.urandom(2 * MIB + 3)


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server = Server()
    yield server
    server.close()


@pytest.fixture
def storage() -> Iterator[Storage]:
    made = open_storage()
    yield made
    made.close()


class Ranged:
    """A server that knows ranges and versions."""

    def __init__(self, content: bytes, etag: str) -> None:
        self.content = content
        self.etag = etag
        self.cut = len(content)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        size = len(self.content)
        if start >= size and wanted:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{size}")
            start = size
        else:
            handler.send_response(206 if wanted else 200)
            handler.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", "text/x-fasta")
        handler.send_header("Content-Length", str(size - start))
        handler.end_headers()
        handler.wfile.write(self.content[start : self.cut])


def test_from_an_offset_with_and_without_ranges(server: Server, storage: Storage) -> None:
    """Catches a byte too many or too few where the server sends everything again."""
    server.answers["/ranged"] = Ranged(CONTENT, '"v1"')
    server.answers["/plain"] = plain(CONTENT)
    stat = storage.stat(server.url("/ranged"))
    assert (stat.size, stat.version, stat.content_type, stat.checksum) == (
        len(CONTENT),
        '"v1"',
        "text/x-fasta",
        "",
    )
    for path, version in (("/ranged", '"v1"'), ("/plain", "")):
        for offset in (0, 1, MIB, len(CONTENT) - 1, len(CONTENT)):
            assert read(storage, server.url(path), offset=offset, version=version) == CONTENT[offset:]
        with fails(Trouble.CHANGED):
            read(storage, server.url(path), offset=len(CONTENT) + 1)


def test_another_version(server: Server, storage: Storage) -> None:
    """Catches a first half of one file and a second of another."""
    server.answers["/a"] = Ranged(CONTENT, '"v2"')
    for offset in (0, 5):
        with fails(Trouble.CHANGED, "has changed meanwhile"):
            read(storage, server.url("/a"), offset=offset, version='"v1"')
    server.answers["/a"] = Ranged(CONTENT, 'W/"v1"')
    assert storage.stat(server.url("/a")).version == ""


def test_what_is_said(server: Server, storage: Storage) -> None:
    """Catches a refusal that tells the password, or does not tell what to do."""
    for status, trouble in (
        *((404, Trouble.MISSING), (410, Trouble.MISSING), (401, Trouble.DENIED), (403, Trouble.DENIED)),
        *((500, Trouble.AWAY), (503, Trouble.AWAY), (429, Trouble.AWAY), (400, Trouble.OTHER)),
    ):
        server.answers["/a"] = plain(b"no", status=status)
        url = server.url("/a?secret=testing").replace("://", "://user:testing@")
        with fails(trouble, f"/a?...: the server answered {status}"):
            read(storage, url)
    server.answers["/r"] = redirect("http://10.9.8.7/")
    with fails(Trouble.REFUSED, "GANTRY_URI_ALLOW_NETWORKS"):
        read(storage, server.url("/r"))
    with fails(Trouble.OTHER, "uri"):
        storage.stat("ftp://a/b")


def test_cut_off_and_silent(server: Server, storage: Storage) -> None:
    """Catches a half file that is taken for a whole one, and a cancel that has to wait."""
    half = server.answers["/half"] = Ranged(CONTENT, '"v1"')
    half.cut = MIB
    with fails(Trouble.AWAY, f"ended after {MIB} of {len(CONTENT)} bytes"):
        read(storage, server.url("/half"))
    server.answers["/hang"] = hang
    since = time.monotonic()

    def tick() -> None:
        if time.monotonic() > since + 0.3:
            raise OSError("cancelled")

    with pytest.raises(OSError, match="cancelled"):
        open_storage(tick=tick).stat(server.url("/hang"))
    assert time.monotonic() - since < limit(5)


def test_it_is_for_reading(server: Server, storage: Storage) -> None:
    with fails(Trouble.OTHER, "reading only"):
        storage.store(server.url("/a"), Upload(0, 0, "m"))
    with fails(Trouble.OTHER, "reading only"):
        storage.remove(server.url("/a"))
    storage.discard(server.url("/a"), "m")


def test_paths_of_urls() -> None:
    """Catches a name that is decoded twice, or not at all."""
    for url, path in (
        ("swift://c/a%20b%2520c%3F%23+/e%CC%81", "c/a b%20c?#+/e\u0301"),
        ("swift://c//a/../b", "c//a/../b"),
        ("http://u:p@h/a%20b?c", "http://u:p@h/a%20b?c"),
    ):
        assert path_of(url) == path
    with pytest.raises(StorageFailed):
        path_of("swift://c/%FF")
