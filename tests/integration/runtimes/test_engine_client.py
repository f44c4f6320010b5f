"""The engine's client and a real engine: unix socket, TCP and TLS; what a failed call may have done."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support import images as rig
from tests.support.engines import Engine as Rig
from tests.support.images import BUSYBOX, PASSWORD, USER, Registry
from tests.support.proxy import Proxy
from tests.support.pulls import as_node, refused
from workers.runtimes.engine.client import Address, Channel, Engine, EngineAway, EngineRefused

_ATTACH = {"stream": True, "stdout": True, "stderr": True}


class TlsDoor:
    """TLS before an engine's unix socket, for clients with a certificate; bytes both ways."""

    def __init__(self, folder: Path, upstream: Path, host: str) -> None:
        self.folder = folder
        _certificates(folder, host)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._upstream = upstream
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> TlsDoor:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread, which else takes one more
        self._thread.join()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._server.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as inner,
            socket.socket(socket.AF_UNIX) as engine,
        ):
            engine.connect(str(self._upstream))
            while True:
                ready = [inner] if inner.pending() else select.select([inner, engine], [], [], 30)[0]
                for side, other in ((inner, engine), (engine, inner)):
                    if side in ready:
                        data = side.recv(65_536)
                        if not data:
                            return
                        other.sendall(data)


def _certificates(folder: Path, host: str) -> None:
    """ca.pem; server.pem for ``host``; cert.pem for the client; each with its key."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    above = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def make(file: str, name: x509.Name, key: ec.EllipticCurvePrivateKey, *more: x509.ExtensionType) -> None:
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(above)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False)
        )
        for extension in more:
            made = made.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        text = made.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (folder / f"{file}.pem").write_bytes(text)
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / ("key.pem" if file == "cert" else f"{file}-key.pem")).write_bytes(secret)

    known = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    make("ca", above, authority, x509.BasicConstraints(ca=True, path_length=None), known)
    where: x509.GeneralName = x509.DNSName(host)
    with contextlib.suppress(ValueError):
        where = x509.IPAddress(ipaddress.ip_address(host))
    for file, names in (("server", [x509.SubjectAlternativeName([where])]), ("cert", [])):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        make(file, name, ec.generate_private_key(ec.SECP256R1()), *names)


Making = Callable[[str], Engine]


@pytest.fixture
def by(engine: Rig, tmp_path: Path) -> Iterator[Making]:
    """The client on the way that is named: unix, tcp, tls."""
    with contextlib.ExitStack() as stack:

        def make(way: str) -> Engine:
            if way == "unix":
                address = Address.parse(engine.url)
            elif way == "tcp":
                wire = stack.enter_context(Proxy(str(engine.socket)))
                address = Address.parse(f"tcp://127.0.0.1:{wire.port}")
            else:
                door = stack.enter_context(TlsDoor(tmp_path / "tls", engine.socket, "127.0.0.1"))
                address = Address.parse(f"tcp://127.0.0.1:{door.port}", tls=str(door.folder))
            return stack.enter_context(contextlib.closing(Engine(address)))

        yield make


def _everything(channel: Channel) -> bytes:
    """What a stream says until its end, a log's chunks included."""
    found = b""
    while select.select([channel], [], [], 30)[0]:
        with contextlib.suppress(BlockingIOError):
            data = channel.recv(65_536)
            found += data
            if not data or found.endswith(b"0\r\n\r\n"):
                return found
    raise AssertionError(f"the stream fell silent after {found!r}")


@pytest.mark.parametrize("way", ["unix", "tcp", "tls"])
def test_every_way_to_an_engine(by: Making, way: str) -> None:
    """Calls, refusals, live output and log. Catches a transport that one of them does not work over."""
    link = by(way)
    body = {"Image": BUSYBOX, "Cmd": ["sh", "-c", "head -c 100000 /dev/zero; echo err >&2"]}
    made = link.call(lambda docker: docker.create_container_from_config(body, "way"))["Id"]
    assert link.inspect("nothing") is None
    with pytest.raises(EngineRefused, match="No such container: nothing") as caught:
        link.ask("POST", "/containers/nothing/start")
    assert caught.value.status == 404
    live = link.raw("POST", "/containers/way/attach", _ATTACH)
    link.call(lambda docker: docker.start("way"))
    said = _everything(live)
    live.close()
    assert (live.chunked, said.count(b"\0") >= 100_000, b"err\n" in said) == (False, True, True)
    found = link.inspect("way")
    assert found is not None
    assert (found["Id"], found["State"]["ExitCode"]) == (made, 0)
    log = link.raw("GET", "/containers/way/logs", {"stdout": True, "stderr": True, "follow": True})
    assert log.chunked
    assert b"err\n" in _everything(log)
    log.close()
    with link.stream("GET", "/events", query={"since": 0, "until": 1 << 31}) as answer:
        assert "start" in (event["Action"] for event in answer.lines() if event.get("id") == made)


@pytest.mark.parametrize("host", ["elsewhere.test", ""])
def test_a_tls_engine_that_is_not_the_one_asked_for(engine: Rig, tmp_path: Path, host: str) -> None:
    """Another name in its certificate, or nobody who vouches for it: no request is ever sent."""
    with TlsDoor(tmp_path / "tls", engine.socket, host or "127.0.0.1") as door:
        if not host:
            (door.folder / "ca.pem").unlink()
        link = Engine(Address.parse(f"tcp://127.0.0.1:{door.port}", tls=str(door.folder)))
        with pytest.raises(EngineAway) as caught:
            link.ask("GET", "/info")
        assert not caught.value.sent
        link.close()


def test_the_environment_of_the_worker_is_no_matter(
    by: Making, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches requests of the engine that go to a proxy, and a wrong bundle of certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    for way in ("unix", "tcp", "tls"):
        assert by(way).call(lambda docker: docker.info())["ID"]


def test_what_the_workers_account_is_logged_in_to_is_no_tenants(
    engine: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Any
) -> None:
    """Catches the SDK's habit of showing ~/.docker/config.json to a registry."""
    as_node(settings, tmp_path, 1.0)
    with Registry(engine, port=5003, closed=True) as closed:
        name = closed.push(BUSYBOX, "private/app:1")
        rig.forget(engine, name)
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {closed.address: {"auth": known}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        link = Engine(Address.parse(engine.url))
        assert "cannot be pulled" in refused(link, name, deadline_s=30.0).message
        link.close()


# --- what a failed call may have done -------------------------------------------------------------------


def _failure(link: Engine, timeout_s: float = 30.0) -> EngineAway:
    with pytest.raises(EngineAway) as caught:
        link.call(lambda docker: docker.start("it"), timeout_s=timeout_s)
    return caught.value


def test_nobody_listens(tmp_path: Path) -> None:
    """Nothing was sent, and it says where nobody is; no socket is left open."""
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left))
    for url in (f"unix://{tmp_path}/none.sock", f"unix://{left}", "tcp://127.0.0.1:9"):
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 nothing is kept of it
        failure = _failure(Engine(Address.parse(url)))
        assert (failure.sent, url in str(failure)) == (False, True)
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_an_engine_that_falls_silent(mortal_engine: Rig) -> None:
    """It has the request: nobody knows. Then it comes back on the same client."""
    link = Engine(Address.parse(mortal_engine.url))
    assert link.inspect("it") is None
    mortal_engine.freeze()
    failure = _failure(link, timeout_s=0.5)
    assert failure.sent
    mortal_engine.thaw()
    assert link.inspect("it") is None
    mortal_engine.kill_daemon()
    assert not _failure(link).sent
    mortal_engine.start_daemon()
    assert link.inspect("it") is None
    link.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n\r\nno JSON", b'HTTP/1.1 502 No\r\nContent-Length: 13\r\n\r\n{"error": "x"}'],
)
def test_somebody_else_listens(tmp_path: Path, answer: bytes) -> None:
    """Catches an error of a library that nobody expects."""
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            with server.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises((EngineAway, EngineRefused)):
            Engine(Address.parse(f"unix://{path}")).ask("GET", "/info")
        thread.join()


def _created(link: Engine, name: str) -> str:
    body = {"Image": BUSYBOX}
    return str(link.call(lambda docker: docker.create_container_from_config(body, name))["Id"])


def test_many_threads_share_few_connections(engine: Rig) -> None:
    """64 watchers ask at once. Catches answers that are mixed up, and connections that are piled up."""
    link = Engine(Address.parse(engine.url))
    names = [f"c{number}" for number in range(8)]
    ids = {name: _created(link, name) for name in names}
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def ask(number: int) -> bool:
        name = names[number % len(names)]
        return all((link.inspect(name) or {}).get("Id") == ids[name] for _ in range(5))

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(ask, range(64)))
    assert len(os.listdir("/proc/self/fd")) - before <= 16  # noqa: PTH208
    link.close()
