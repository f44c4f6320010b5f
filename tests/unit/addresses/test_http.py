"""Requests to addresses that clients name, against real servers that misbehave in every way."""

from __future__ import annotations

import datetime
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_django import Settings

from tests.support import waiting
from tests.unit.addresses.web_server import Answer, Server, drip, hang, plain, redirect
from workers.addresses import AddressFailed, Deadline, open_url
from workers.addresses import http as addresses_http
from workers.vocabulary.errors import AddressRefused, InvalidInput

pytestmark = pytest.mark.invariant


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]
    server = Server()
    yield server
    server.close()


def get(url: str, *, limit: int = 1 << 20, seconds: float = 60.0, **options: Any) -> tuple[int, bytes]:
    options.setdefault("deadline", Deadline(seconds))
    with open_url(url, purpose="uri", **options) as answer:
        return answer.status, answer.body(limit)


def test_an_ordinary_answer(server: Server) -> None:
    assert get(server.url("/a?b=c")) == (200, b"fine")

    ((path, headers),) = server.seen
    assert path == "/a?b=c"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("gantry/")
    assert "authorization" not in headers


def test_loopback_is_refused_without_the_operators_word(server: Server, settings: Settings) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = []

    for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "localhost."):
        with pytest.raises(AddressRefused):
            get(server.url(host=host))
    assert server.seen == []


def test_it_connects_to_the_address_that_was_checked_and_looks_up_once(server: Server) -> None:
    """DNS rebinding: a second look-up would get another answer."""
    answers = iter([["127.0.0.1"], ["10.9.8.7"]])
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return next(answers)

    assert get(server.url(host="name.test"), resolver=rebinding) == (200, b"fine")
    assert asked == ["name.test"]
    assert server.seen[0][1]["host"] == f"name.test:{server.port}"
    with pytest.raises(AddressRefused, match=r"name\.test is refused: it leads to a private network"):
        get(server.url(host="name.test"), resolver=rebinding)


def test_a_dead_address_is_skipped(server: Server) -> None:
    assert get(server.url(host="name.test"), resolver=lambda _: ["127.0.0.99", "127.0.0.1"])[0] == 200


def test_proxies_of_the_environment_are_ignored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert get(server.url())[0] == 200


def test_a_body_and_headers_are_sent(server: Server) -> None:
    received: list[bytes] = []

    def echo(request: BaseHTTPRequestHandler) -> None:
        received.append(request.rfile.read(int(request.headers["Content-Length"])))
        plain()(request)

    server.answers["/hook"] = echo
    status, _ = get(
        server.url("/hook"), method="POST", body=b'{"a":1}', headers={"Content-Type": "application/json"}
    )

    assert (status, received) == (200, [b'{"a":1}'])
    assert server.seen[0][1]["content-type"] == "application/json"


def test_redirects_are_not_followed_unless_asked_for(server: Server) -> None:
    server.answers["/old"] = redirect("/new")

    assert get(server.url("/old"))[0] == 302
    assert get(server.url("/old"), redirects=5) == (200, b"fine")
    assert [path for path, _ in server.seen] == ["/old", "/old", "/new"]


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::1]/",
        "//192.168.0.1/x",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://evil.example\\@127.0.0.1/",
    ],
)
def test_each_redirect_passes_the_guard(server: Server, location: str) -> None:
    server.answers["/go"] = redirect(location)

    with pytest.raises(AddressRefused):
        get(server.url("/go"), redirects=5)


def test_redirects_end(server: Server) -> None:
    server.answers["/loop"] = redirect("/loop")

    with pytest.raises(AddressFailed, match="more than 3 redirects"):
        get(server.url("/loop"), redirects=3)
    assert len(server.seen) == 4


def test_credentials_stay_with_the_host_that_the_client_named(server: Server) -> None:
    server.answers["/here"] = redirect("/still-here")
    server.answers["/still-here"] = redirect(server.url("/there", host="localhost"))
    url = server.url("/here").replace("://", "://ann:secret@")

    assert get(url, redirects=5, credentials=True)[0] == 200
    assert ["authorization" in headers for _, headers in server.seen] == [True, True, False]
    with pytest.raises(InvalidInput, match="leave the user name"):
        get(url)


def test_the_body_is_read_up_to_the_limit(server: Server) -> None:
    server.answers["/big"] = plain(b"x" * 3_000_000)

    assert get(server.url("/big"), limit=1000) == (200, b"x" * 1000)


@pytest.mark.parametrize("answer", [drip, hang])
def test_the_deadline_covers_slow_headers(server: Server, answer: Answer) -> None:
    server.answers["/slow"] = answer

    with pytest.raises(AddressFailed, match="it took longer than 1 s"):
        get(server.url("/slow"), seconds=1)


def test_the_deadline_covers_a_slow_body(server: Server) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while True:  # until the client has gone
            request.wfile.write(b"x")
            time.sleep(0.05)  # pace: a slow peer

    server.answers["/slow"] = slow
    with pytest.raises(AddressFailed, match="it took longer than 1 s"):
        get(server.url("/slow"), seconds=1)
    server.answers["/slow"] = hang
    with pytest.raises(AddressFailed, match=r"nothing came for 0\.3 s"):
        get(server.url("/slow"), deadline=Deadline(60, stall_s=0.3))


def test_the_deadline_covers_the_look_up(server: Server) -> None:
    given_up, answered = threading.Event(), threading.Event()

    def slow(host: str) -> list[str]:
        given_up.wait(waiting.limit(300))
        answered.set()
        return ["127.0.0.1"]

    with pytest.raises(AddressFailed, match="it took longer than 1 s"):
        get(server.url(host="name.test"), seconds=1, resolver=slow)
    assert not answered.is_set(), "the answer was waited for"
    given_up.set()


def test_whoever_waits_can_give_up(server: Server) -> None:
    class Stop(Exception):
        pass

    server.answers["/hang"] = hang
    ticks = itertools.count()

    def tick() -> None:
        if next(ticks) > 2:
            raise Stop

    with pytest.raises(Stop):
        get(server.url("/hang"), deadline=Deadline(3600, tick=tick))


def test_failures_are_told_in_one_sentence_without_the_query(server: Server) -> None:
    with socket.socket() as closed:  # held, so that nobody else is given the port
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(AddressFailed) as caught:
            get(f"http://127.0.0.1:{port}/x?token=abc")
    assert (
        caught.value.message == f"http://127.0.0.1:{port}/x?...: nothing listens there (connection refused)"
    )

    def no_name(host: str) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(AddressFailed, match=r"its name name\.test cannot be looked up"):
        get(server.url(host="name.test"), resolver=no_name)

    def garbage(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"220 smtp.example ESMTP\r\n\r\n")
        request.close_connection = True

    server.answers["/"] = garbage
    with pytest.raises(AddressFailed, match="not a complete HTTP answer"):
        get(server.url())

    def torn(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"5\r\nhello\r\n5\r\nhe")
        request.close_connection = True

    server.answers["/"] = torn
    with pytest.raises(AddressFailed, match="not a complete HTTP answer"):
        get(server.url())


def certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate for a name that vouches for itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


def test_tls_checks_the_name_of_the_url(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GANTRY_URI_ALLOW_NETWORKS = ["127.0.0.0/8"]
    path, context = certificate(tmp_path, "name.test")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    addresses_http._tls.cache_clear()
    server = Server(context)
    try:
        for host in ("name.test", "other.test"):
            url = server.url("/x", host=host, scheme="https")
            if host == "name.test":
                server.answers["/x"] = plain(b"y" * 200_000)
                assert get(url, resolver=lambda _: ["127.0.0.1"]) == (200, b"y" * 200_000)
            else:
                with pytest.raises(AddressFailed, match="its certificate is not valid"):
                    get(url, resolver=lambda _: ["127.0.0.1"])
        assert names == ["name.test", "other.test"]
        assert server.seen[0][1]["host"] == f"name.test:{server.port}"
        with pytest.raises(AddressFailed):
            get(server.url(host="name.test"), resolver=lambda _: ["127.0.0.1"])  # no TLS: no answer
    finally:
        server.close()
        addresses_http._tls.cache_clear()
