"""Fetching uris into a working directory: from real servers, with names and answers that mean no good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from tests.unit.addresses.web_server import Server, hang, plain, redirect
from workers.addresses import Target
from workers.runtimes.base import Places
from workers.runtimes.staging.inputs import fetch_inputs
from workers.runtimes.staging.plan import Plan
from workers.runtimes.staging.tries import Interrupted
from workers.runtimes.staging.uris import file_name
from workers.storage.base import StorageFailed

MIB = 1024 * 1024


def fetch_uris(uris: list[str], folder: Path, cancelled: Callable[[], bool] = lambda: False) -> None:
    """As a runtime does before a start; the control folder lies beside the working folder."""
    control = folder.with_name("control")
    control.mkdir(exist_ok=True)

    def tick() -> None:
        if cancelled():
            raise Interrupted

    with contextlib.suppress(Interrupted):
        fetch_inputs(Plan.of({"uris": uris}, ()), Places(folder, control, {}), tick, lambda _: None)


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server = Server()
    yield server
    server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_files_arrive_under_their_names(server: Server, folder: Path) -> None:
    server.answers["/a/data.bin"] = plain(os.urandom(3 * MIB + 17))
    server.answers["/run%20me.sh"] = plain(b"echo hi\n")
    old = os.umask(0o077)
    try:
        fetch_uris([server.url("/a/data.bin?v=1"), server.url("/run%20me.sh#x")], folder)
    finally:
        os.umask(old)

    assert names(folder) == ["data.bin", "run me.sh"]
    assert (folder / "data.bin").stat().st_size == 3 * MIB + 17
    assert (folder / "run me.sh").read_bytes() == b"echo hi\n"
    assert {entry.stat().st_mode & 0o7777 for entry in folder.iterdir()} == {0o644}


def test_nothing_to_fetch_is_nothing(folder: Path) -> None:
    fetch_uris([], folder)

    assert names(folder) == []


def test_redirects_are_followed_and_the_first_name_counts(server: Server, folder: Path) -> None:
    server.answers["/latest.tgz"] = redirect("/v7/other-name.tgz")

    fetch_uris([server.url("/latest.tgz")], folder)

    assert names(folder) == ["latest.tgz"]
    assert (folder / "latest.tgz").read_bytes() == b"fine"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/a/",
        "/..",
        "/a/%2e%2e",
        "/%2e",
        "/..%2fetc",
        "/a%2Fb",
        "/%00x",
        "/a%0ab",
        "/" + "n" * 256,
        "/?x=file",
    ],
)
def test_names_that_could_leave_the_folder_are_refused(server: Server, folder: Path, path: str) -> None:
    with pytest.raises(StorageFailed, match="file name"):
        fetch_uris([server.url("/good"), server.url(path)], folder)

    assert names(folder) == []
    assert server.seen == []


@given(path=st.text(max_size=40))
def test_a_name_is_one_plain_segment_or_refused(path: str) -> None:
    try:
        name = file_name(Target("http", "h", 80, "/" + path))
    except StorageFailed:
        return
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert "\0" not in name


def test_two_uris_with_one_name_are_refused_before_anything_is_fetched(server: Server, folder: Path) -> None:
    with pytest.raises(StorageFailed, match="two uris have the file name 'x'"):
        fetch_uris([server.url("/a/x"), server.url("/b/x")], folder)

    assert server.seen == []


def test_nothing_beneath_a_link_is_written(server: Server, folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (folder / "x").symlink_to(victim)
    fetch_uris([server.url("/x")], folder)

    assert victim.read_bytes() == b"untouched"
    assert not (folder / "x").is_symlink()
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(OSError, match=r"directory|symbolic"):
        fetch_uris([server.url("/y")], link)


def test_a_fetch_that_was_interrupted_can_be_repeated(server: Server, folder: Path) -> None:
    def dies(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"half")
        request.close_connection = True

    server.answers["/x"] = dies
    with pytest.raises(StorageFailed):
        fetch_uris([server.url("/first"), server.url("/x")], folder)
    del server.answers["/x"]
    (folder / "x").write_bytes(b"from before")
    server.seen.clear()

    fetch_uris([server.url("/first"), server.url("/x")], folder)

    assert [path for path, _ in server.seen] == ["/x"], "what was fetched whole is fetched again"
    (folder / "first").unlink()

    assert names(folder) == ["x"]
    assert (folder / "x").read_bytes() == b"fine"


def test_a_folder_in_the_way_is_not_replaced(server: Server, folder: Path) -> None:
    (folder / "x").mkdir()

    with pytest.raises(StorageFailed, match="'x' exists already and is a folder"):
        fetch_uris([server.url("/x")], folder)
    assert names(folder) == ["x"]


@pytest.mark.parametrize("length", ["announced", "unknown"])
def test_a_file_over_the_limit_is_refused(
    server: Server, folder: Path, settings: Settings, length: str
) -> None:
    settings.GANTRY_URI_LIMIT_MB = 1

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        for _ in range(100):
            request.wfile.write(b"x" * MIB)

    server.answers["/x"] = plain(b"x" * (MIB + 1)) if length == "announced" else endless
    with pytest.raises(StorageFailed, match=r"larger than 1 MiB.*GANTRY_URI_LIMIT_MB"):
        fetch_uris([server.url("/x")], folder)

    assert names(folder) == []


def test_failures_name_the_uri_without_its_secrets_and_what_to_do(server: Server, folder: Path) -> None:
    server.answers["/gone"] = plain(b"", 404)
    url = server.url("/gone?token=abc").replace("://", "://ann:secret@")

    with pytest.raises(StorageFailed) as caught:
        fetch_uris([url], folder)

    assert caught.value.message == (
        f"uri http://127.0.0.1:{server.port}/gone?...: the server answered 404 Not Found: "
        "check that the address is right and can be read with what it carries"
    )
    assert "authorization" in server.seen[0][1]
    assert names(folder) == []


def test_an_end_before_the_announced_length_is_a_failure(server: Server, folder: Path) -> None:
    def short(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"only this")
        request.close_connection = True

    server.answers["/x"] = short
    with pytest.raises(StorageFailed, match="ended after 9 of 100 bytes"):
        fetch_uris([server.url("/x")], folder)
    assert names(folder) == []


@pytest.mark.parametrize(
    "uri", ["ftp://example.com/x", "/etc/passwd", "file:///etc/passwd", "hdfs://n/x", "x"]
)
def test_other_kinds_of_uris_are_refused(uri: str, folder: Path) -> None:
    with pytest.raises(StorageFailed, match=r"uri 1: it has to begin with http:// or https://"):
        fetch_uris([uri], folder)


def test_internal_addresses_are_refused(server: Server, folder: Path, settings: Settings) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = []
    with pytest.raises(StorageFailed, match=r"^uri http://127\.0\.0\.1:\d+/x: 127\.0\.0\.1 is refused"):
        fetch_uris([server.url("/x")], folder)

    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server.answers["/x"] = redirect("http://169.254.169.254/latest")
    with pytest.raises(StorageFailed, match="metadata"):
        fetch_uris([server.url("/x")], folder)
    assert names(folder) == []


def test_a_cancel_is_noticed_and_leaves_no_half_file(server: Server, folder: Path) -> None:
    def stalls(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"some")
        hang(request)

    server.answers["/slow"] = stalls

    def cancelled() -> bool:
        return any(path == "/slow" for path, _ in server.seen)

    fetch_uris([server.url("/first"), server.url("/slow")], folder, cancelled)

    assert names(folder) == ["first"]
