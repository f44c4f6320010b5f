"""The guard for SDKs that speak through `requests`: what open_url promises, a session promises too."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pytest_django import Settings

from tests.support import waiting
from tests.unit.addresses.test_http import certificate
from tests.unit.addresses.web_server import Server, drip, hang, plain, redirect
from workers.addresses import AddressFailed, Deadline, sessions
from workers.addresses.sessions import GuardedSession, guarded_session
from workers.vocabulary.errors import AddressRefused

pytestmark = pytest.mark.invariant


class _CancelledError(Exception):
    pass


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server = Server()
    yield server
    server.close()


def session(*, seconds: float = math.inf, stall_s: float = 60.0, **options: Any) -> GuardedSession:
    tick = options.pop("tick", lambda: None)
    return guarded_session(purpose="swift", deadline=Deadline(seconds, stall_s, tick), **options)


def test_an_ordinary_answer_over_one_connection(server: Server) -> None:
    server.answers["/a"] = plain(b"y" * 300_000)
    with session() as http:
        for _ in range(2):
            assert http.get(server.url("/a?b=c")).content == b"y" * 300_000


def test_an_operators_address_is_anywhere(server: Server, settings: Settings) -> None:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = []
    server.answers["/a"] = plain(b"inside")
    with guarded_session(purpose="", deadline=Deadline(60.0)) as http:
        for host in ("127.0.0.1", "localhost"):
            assert http.get(server.url("/a", host=host)).content == b"inside"


def test_loopback_is_refused_without_the_operators_word(server: Server, settings: Settings) -> None:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = []
    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]  # another purpose

    with session() as http:
        for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "localhost."):
            with pytest.raises(AddressRefused):
                http.get(server.url(host=host))
    assert server.seen == []


def test_it_connects_to_the_address_that_was_checked_and_looks_up_once(server: Server) -> None:
    """DNS rebinding: a second look-up would get another answer."""
    answers = iter([["127.0.0.1"], ["10.9.8.7"]])

    with session(resolver=lambda host: next(answers)) as http:
        assert http.get(server.url(host="name.test")).content == b"fine"
        assert server.seen[0][1]["host"] == f"name.test:{server.port}"
    again = session(resolver=lambda host: next(answers))
    with again as http, pytest.raises(AddressRefused, match=r"name\.test is refused: it leads to a private"):
        http.get(server.url(host="name.test"))


def test_nothing_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a proxy or a password that somebody else has set."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with session() as http:
        assert http.get(server.url("/")).content == b"fine"
    assert "authorization" not in server.seen[0][1]


def test_redirects_are_handed_back(server: Server) -> None:
    """Catches a token that is carried to another place."""
    server.answers["/from"] = redirect(server.url("/to"))
    with session() as http:
        answer = http.get(server.url("/from"), headers={"X-Auth-Token": "secret"}, allow_redirects=True)
    assert answer.status_code in (301, 302, 303, 307, 308)
    assert [path for path, _ in server.seen] == ["/from"]


def test_paths_go_out_as_they_are_written(server: Server) -> None:
    with session() as http:
        for path in ("/a/../b", "/./x", "/..", "/a//b", "/a%2Fb?c=%20", "/%2E%2E/x", "/a%25"):
            http.get(server.url("/") + path[1:])
            assert server.seen[-1][0] == path


@pytest.mark.parametrize("answer", [hang, drip])
def test_a_tick_ends_it(server: Server, answer: Any) -> None:
    """Catches a cancel that waits for a server that says nothing, or little."""
    server.answers["/"] = answer
    since = time.monotonic()

    def tick() -> None:
        if time.monotonic() > since + 0.3:
            raise _CancelledError

    with session(tick=tick) as http, pytest.raises(_CancelledError):
        _ = http.get(server.url("/")).content
    assert time.monotonic() - since < waiting.limit(5)


def test_silence_and_deadline(server: Server) -> None:
    server.answers["/hang"], server.answers["/drip"] = hang, drip
    with session(stall_s=0.6) as http, pytest.raises(AddressFailed, match=r"nothing came for 0\.6 s"):
        http.get(server.url("/hang"))
    with session(seconds=0.7) as http, pytest.raises(AddressFailed, match=r"longer than 0\.7 s"):
        _ = http.get(server.url("/drip")).content
    with pytest.raises(AddressFailed, match=r"longer than 0\.7 s"):
        _slow_look_up(server)


def _slow_look_up(server: Server) -> None:
    ended = threading.Event()

    def slow(host: str) -> list[str]:
        ended.wait(waiting.limit(30))
        return ["127.0.0.1"]

    try:
        with session(seconds=0.7, resolver=slow) as http:
            http.get(server.url(host="slow.test"))
    finally:
        ended.set()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


def test_nobody_takes_what_is_sent(listener: socket.socket, settings: Settings) -> None:
    """Catches an upload that hangs for ever, in its body or before TLS is there."""
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    port = listener.getsockname()[1]
    with session(stall_s=0.6) as http, pytest.raises(AddressFailed, match="nothing was taken"):
        http.put(f"http://127.0.0.1:{port}/", data=b"x" * (32 << 20))
    with session(stall_s=0.6) as http, pytest.raises(AddressFailed, match="no TLS handshake"):
        http.get(f"https://127.0.0.1:{port}/")


def test_an_early_answer_is_read_and_the_connection_not_used_again(
    listener: socket.socket, settings: Settings
) -> None:
    """Catches a refusal that is lost in a reset, and a next request that is taken for the rest of a body."""
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    heads: list[bytes] = []

    def serve() -> None:
        for status in (b"413 Too Large", b"200 OK"):
            connection, _ = listener.accept()
            connections.append(connection)
            heads.append(connection.recv(100))
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno")

    connections: list[socket.socket] = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with session() as http:
        assert http.put(url, data=b"x" * (32 << 20)).status_code == 413
        assert http.get(url).status_code == 200
    thread.join(waiting.limit(10))
    assert [head[:4] for head in heads] == [b"PUT ", b"GET "]
    for connection in connections:
        connection.close()


def test_refused_connections_and_others(server: Server) -> None:
    """Catches a failure that says nothing, and one in the words of a library."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with session() as http, pytest.raises(AddressFailed, match="nothing listens there"):
        http.get(f"http://127.0.0.1:{port}/")
    with session() as http, pytest.raises(AddressRefused, match="port 25"):
        http.get("http://127.0.0.1:25/")
    with session() as http, pytest.raises(requests.RequestException):
        http.get("ftp://127.0.0.1/")


def test_tls_checks_the_name_of_the_url(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    path, context = certificate(tmp_path, "name.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    sessions._context.cache_clear()
    server = Server(context)
    server.answers["/x"] = plain(b"y" * 300_000)
    try:
        with session(resolver=lambda _: ["127.0.0.1"]) as http:
            for _ in range(2):
                url = server.url("/x", host="name.test", scheme="https")
                assert http.get(url).content == b"y" * 300_000
            with pytest.raises(AddressFailed, match="its certificate is not valid"):
                http.get(server.url("/x", host="other.test", scheme="https"))
        assert server.seen[0][1]["host"] == f"name.test:{server.port}"
    finally:
        server.close()
        sessions._context.cache_clear()
