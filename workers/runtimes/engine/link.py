"""Below the Docker SDK's client: where an engine listens, its pool of connections, a stream's own connection.

The transports are the SDK's and requests'; here they are told to share one pool per engine (the SDK has one
for each URL), to notice a peer that is gone, and to give up a stream to a thread that reads many of them.
Must not import Django, models or the database.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import requests
from docker.tls import TLSConfig
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError
from urllib3.util.ssl_ import create_urllib3_context

DEFAULT_ADDRESS: Final = "unix:///var/run/docker.sock"
#: What the SDK calls every engine behind a unix socket.
_UNIX: Final = "http+docker://localhost"
#: Connections kept open while nobody uses them.
_IDLE_MOST: Final = 16
#: A peer that is gone without a word is noticed within half a minute.
_KEEPALIVE: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


@dataclass(frozen=True)
class Address:
    """Where an engine listens: a unix socket, or host and port, with TLS if ``tls`` names the folder."""

    shown: str
    path: str = ""
    host: str = ""
    port: int = 0
    tls: str = ""

    @classmethod
    def parse(cls, text: str, *, tls: str = "") -> Address:
        """Read a DOCKER_HOST. Raises ValueError with what is wrong and what is known.

        Not the SDK's ``parse_host``: it takes any word for a host, and a port that is left out for a mistake.
        """
        parts = urlsplit(text or DEFAULT_ADDRESS)
        if parts.scheme == "unix":
            path = unquote(parts.netloc + parts.path)
            if not path.startswith("/"):
                raise ValueError(f"DOCKER_HOST is {text!r}: write unix:// and an absolute path")
            return cls(f"unix://{path}", path=path)
        if parts.scheme in ("tcp", "http", "https") and parts.hostname:
            secure = tls or ("." if parts.scheme == "https" else "")
            port = parts.port or (2376 if secure else 2375)
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return cls(f"{parts.scheme}://{host}:{port}", host=parts.hostname, port=port, tls=secure)
        raise ValueError(f"DOCKER_HOST is {text!r}: use unix:///path/to/docker.sock or tcp://host:port")

    @classmethod
    def from_environment(cls) -> Address:
        """DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as docker's own client reads them.

        Not the SDK's ``kwargs_from_env``: with a DOCKER_CERT_PATH alone it speaks TLS to anybody, unverified.
        """
        verify = os.environ.get("DOCKER_TLS_VERIFY", "") not in ("", "0")
        folder = os.environ.get("DOCKER_CERT_PATH", "") or str(Path.home() / ".docker")
        return cls.parse(os.environ.get("DOCKER_HOST", ""), tls=folder if verify else "")


@dataclass(frozen=True)
class _Files:
    """The certificates of an address; what is not there is None."""

    authority: str | None
    client: tuple[str, str] | None

    @classmethod
    def of(cls, address: Address) -> _Files:
        folder = Path(address.tls)
        authority, own, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        return cls(
            str(authority) if authority.is_file() else None, (str(own), str(key)) if own.is_file() else None
        )


def tls_of(address: Address) -> TLSConfig | None:
    """For the SDK's client; None without TLS. Raises docker.errors.TLSParameterError."""
    if not address.tls:
        return None
    files = _Files.of(address)
    return TLSConfig(client_cert=files.client, ca_cert=files.authority, verify=True)


class _Connection(UnixHTTPConnection):  # type: ignore[misc]  # the SDK has no types
    """The SDK's, which neither closes a socket that cannot connect nor says that it was only connecting."""

    def connect(self) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(self.timeout)
            link.connect(self.unix_socket)
        except TimeoutError as error:
            link.close()
            raise ConnectTimeoutError(self, "it takes no connections") from error
        except OSError:
            link.close()
            raise
        self.sock = link


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _OnePool(UnixHTTPAdapter):  # type: ignore[misc]
    """The SDK's adapter with one pool: its own makes one for each URL, so that nothing is used again."""

    def get_connection(self, url: str, proxies: Any = None) -> _Pool:
        with self.pools.lock:
            pool: _Pool | None = self.pools.get("")
            if pool is None:
                pool = _Pool(_UNIX, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[""] = pool
        return pool


class _Secure(HTTPSConnection):
    """TLS by the same rules on every Python: chain and name. From 3.13 on the default also refuses what is
    made by Docker's own instructions, for want of an extension."""

    def connect(self) -> None:
        if self.ssl_context is None:
            self.ssl_context = create_urllib3_context()
            self.ssl_context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        super().connect()


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Wakeful(HTTPAdapter):
    """TCP that notices a peer which is gone."""

    def init_poolmanager(self, *args: Any, **given: Any) -> None:
        super().init_poolmanager(*args, socket_options=_KEEPALIVE, **given)
        classes = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {**classes, "https": _SecurePool}


def adapter_for(address: Address, connect_s: float) -> HTTPAdapter:
    """The pool of connections to an engine, for any number of clients."""
    if address.path:
        return _OnePool(f"http+unix://{address.path}", timeout=connect_s, max_pool_size=_IDLE_MOST)
    return _Wakeful(pool_connections=1, pool_maxsize=_IDLE_MOST)


def connection_for(address: Address, connect_s: float) -> Any:
    """A connection of the same transports that belongs to nobody else, not yet connected."""
    if address.path:
        return _Connection(_UNIX, address.path, connect_s)
    given: dict[str, Any] = {"timeout": connect_s, "socket_options": _KEEPALIVE}
    if not address.tls:
        return HTTPConnection(address.host, address.port, **given)
    files = _Files.of(address)
    certificate, key = files.client or (None, None)
    return _Secure(
        address.host,
        address.port,
        cert_file=certificate,
        key_file=key,
        ca_certs=files.authority or DEFAULT_CA_BUNDLE_PATH,
        cert_reqs="CERT_REQUIRED",
        **given,
    )


class Channel:
    """The rest of an answer as a descriptor that never blocks: ``recv`` raises BlockingIOError instead.

    ``chunked``: what is read has HTTP's chunks around it. The SDK's own way (``attach_socket``) forgets what
    came in one piece with the answer's head.
    """

    def __init__(self, response: requests.Response) -> None:
        self._response = response  # closes its socket when it is forgotten
        self.chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        link: socket.socket | None = response.raw.connection.sock
        if link is None:
            raise ValueError("its answer is no stream")
        self._socket = link
        link.setblocking(False)
        try:
            # Where the SDK looks for the socket, too; what was read with the head is in this buffer.
            self._first = bytes(response.raw._fp.fp.peek(1))
        except ssl.SSLWantReadError:
            self._first = b""

    def recv(self, most: int) -> bytes:
        """What is there now; b"" at the end. Raises BlockingIOError when that is nothing, OSError."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return self._socket.recv(most)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None

    def send(self, data: bytes, patience_s: float = 10.0) -> None:
        """Write all of it. Raises OSError, also when nobody takes it for ``patience_s`` seconds."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if not select.select([], [self._socket], [], patience_s)[1]:
                    raise TimeoutError("nobody takes what is written") from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._response.close()
