"""The one client of the Docker Engine: plain HTTP over its socket, connections kept alive and shared.

Not the Docker SDK (docs/decisions/0020): what matters here is to know whether a request may have been carried
out, and to read 64 log streams in one thread. Every call either answers, or raises EngineRefused (the engine
said no) or EngineAway (nobody knows; ``sent`` says whether it may have happened). Safe for many threads.
Must not import Django, models or the database.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

DEFAULT_ADDRESS: Final = "unix:///var/run/docker.sock"
#: The API versions that this code was written and tested for; an engine that is older or newer gets its own.
_API_LEAST, _API_MOST = (1, 41), (1, 47)
_CONNECT_S: Final = 5.0
#: Connections kept open while nobody uses them.
_IDLE_MOST: Final = 16


class EngineAway(Exception):
    """The engine did not answer. ``sent``: the request may have been carried out all the same."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class EngineRefused(Exception):
    """The engine answered with an error: its HTTP status and its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (the engine answered {status})")
        self.status = status
        self.message = message


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
        """Read a DOCKER_HOST. Raises ValueError with what is wrong and what is known."""
        parts = urlsplit(text or DEFAULT_ADDRESS)
        if parts.scheme == "unix":
            path = unquote(parts.netloc + parts.path)
            if not path.startswith("/"):
                raise ValueError(f"DOCKER_HOST is {text!r}: write unix:// and an absolute path")
            return cls(f"unix://{path}", path=path)
        if parts.scheme in ("tcp", "http", "https") and parts.hostname:
            secure = tls or ("." if parts.scheme == "https" else "")
            port = parts.port or (2376 if secure else 2375)
            return cls(
                f"{parts.scheme}://{parts.hostname}:{port}", host=parts.hostname, port=port, tls=secure
            )
        raise ValueError(f"DOCKER_HOST is {text!r}: use unix:///path/to/docker.sock or tcp://host:port")

    @classmethod
    def from_environment(cls) -> Address:
        """DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as docker's own client reads them."""
        verify = os.environ.get("DOCKER_TLS_VERIFY", "") not in ("", "0")
        folder = os.environ.get("DOCKER_CERT_PATH", "") or str(Path.home() / ".docker")
        return cls.parse(os.environ.get("DOCKER_HOST", ""), tls=folder if verify else "")

    def connect(self, timeout_s: float | None) -> socket.socket:
        """A connected socket. Raises OSError."""
        if self.path:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                channel.settimeout(_CONNECT_S)
                channel.connect(self.path)
            except OSError:
                channel.close()
                raise
        else:
            channel = socket.create_connection((self.host, self.port), _CONNECT_S)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            if self.tls:
                channel = self._secured(channel)
        channel.settimeout(timeout_s)
        return channel

    def _secured(self, channel: socket.socket) -> socket.socket:
        folder = Path(self.tls)
        authority = folder / "ca.pem"
        context = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        if (folder / "cert.pem").exists():
            context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
        return context.wrap_socket(channel, server_hostname=self.host)


class _Connection(http.client.HTTPConnection):
    """HTTP over whatever the address is."""

    def __init__(self, address: Address, timeout_s: float | None) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._address = address
        self._patience = timeout_s

    def connect(self) -> None:
        self.sock = self._address.connect(self._patience)

    @property
    def stale(self) -> bool:
        """Has the other side closed it, or said something that nobody asked for?"""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])


class Answer:
    """An answer that is read in pieces; close it. Not for use by several threads."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def lines(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of a stream, one a line, until it ends. Raises EngineAway when it is cut."""
        try:
            while line := self._response.readline():
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineAway(f"its stream was cut: {_said(error)}", sent=True) from error

    def read(self, most: int = -1) -> bytes:
        """Up to ``most`` bytes; b"" at the end. Raises EngineAway when it is cut."""
        try:
            return self._response.read(most) if most >= 0 else self._response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineAway(f"its stream was cut: {_said(error)}", sent=True) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._response.close()
        self._connection.close()


class Engine:
    """One engine. ``timeout_s`` of a call is the longest silence, not the whole time."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        #: "/v1.41"; empty until the engine has answered once.
        self.prefix = ""

    # --- calls ---------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Any:
        """One call; its JSON (None when the answer has none). Raises EngineRefused, EngineAway."""
        connection, response = self._request(method, path, query, body, headers, timeout_s)
        try:
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._away(error, sent=True) from error
        self._keep(connection, response)
        if response.status >= 400:
            raise EngineRefused(response.status, _words(data))
        try:
            return json.loads(data) if data.strip() else None
        except ValueError as error:
            raise self._away(error, sent=True) from error

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = 60.0,
    ) -> Iterator[Answer]:
        """A call whose answer is read in pieces (pull, events). Raises EngineRefused, EngineAway."""
        connection, response = self._request(method, path, query, body, headers, timeout_s, fresh=True)
        answer = Answer(connection, response)
        try:
            if response.status >= 400:
                raise EngineRefused(response.status, _words(answer.read()))
            yield answer
        finally:
            answer.close()

    def raw(
        self, method: str, path: str, query: Mapping[str, Any], body: Mapping[str, Any] | None = None
    ) -> socket.socket:
        """A request that has been sent; the caller reads the whole HTTP answer, and may go on writing where
        the engine listens. ``body`` is JSON. Raises EngineAway."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        prefix = self.version_prefix()
        try:
            channel = self.address.connect(10.0)
        except OSError as error:
            raise self._away(error, sent=False) from error
        try:
            channel.sendall(
                f"{method} {prefix}{path}{_tail(query)} HTTP/1.1\r\nHost: docker\r\n"
                f"{kind}Content-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
        except OSError as error:
            channel.close()
            raise self._away(error, sent=True) from error
        return channel

    def inspect(self, container: str, *, timeout_s: float = 30.0) -> dict[str, Any] | None:
        """What the engine says of a container by name or id; None when there is none."""
        try:
            found: dict[str, Any] = self.ask(
                "GET", f"/containers/{quote(container)}/json", timeout_s=timeout_s
            )
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise
        return found

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- underneath ----------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        *,
        fresh: bool = False,
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        target = f"{self.version_prefix()}{path}{_tail(query)}"
        return self._send(method, target, body, dict(headers or {}), timeout_s, fresh=fresh)

    def _send(
        self,
        method: str,
        target: str,
        body: Any,
        headers: dict[str, str],
        timeout_s: float | None,
        *,
        fresh: bool,
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = self._connection(timeout_s, fresh=fresh)
        try:
            connection.request(method, target, body=data, headers=headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._away(error, sent=True) from error

    def _connection(self, timeout_s: float | None, *, fresh: bool) -> _Connection:
        while not fresh:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if not connection.stale:
                connection.sock.settimeout(timeout_s)
                return connection
            connection.close()
        connection = _Connection(self.address, timeout_s)
        try:
            connection.connect()
        except OSError as error:
            raise self._away(error, sent=False) from error
        return connection

    def _keep(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        if not response.will_close and connection.sock is not None:
            with self._lock:
                if len(self._idle) < _IDLE_MOST:
                    self._idle.append(connection)
                    return
        connection.close()

    def version_prefix(self) -> str:
        """How paths begin: the API's version that both sides know, asked once."""
        if not self.prefix:
            connection, response = self._send("GET", "/version", None, {}, _CONNECT_S, fresh=False)
            try:
                told = json.loads(response.read())
                newest, oldest = _version(told["ApiVersion"]), _version(told.get("MinAPIVersion", "1.12"))
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
                connection.close()
                raise self._away(error, sent=True) from error
            self._keep(connection, response)
            use = max(min(newest, _API_MOST), oldest)
            if use < _API_LEAST:
                least = ".".join(map(str, _API_LEAST))
                raise EngineRefused(
                    505, f"its API is version {told['ApiVersion']}, at least {least} is needed"
                )
            self.prefix = f"/v{use[0]}.{use[1]}"
        return self.prefix

    def _away(self, error: Exception, *, sent: bool) -> EngineAway:
        what = f"the Docker Engine at {self.address.shown} does not answer"
        return EngineAway(f"{what}: {_said(error)}", sent=sent)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _tail(query: Mapping[str, Any] | None) -> str:
    """The query part of a path; objects and lists become JSON, true is 1, None is left out."""
    if not query:
        return ""
    told = {}
    for name, value in query.items():
        if value is None:
            continue
        if isinstance(value, bool):
            told[name] = "1" if value else "0"
        else:
            told[name] = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return "?" + urlencode(told)


def _words(data: bytes) -> str:
    """The message of an error answer."""
    try:
        return str(json.loads(data)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace").strip()[:500] or "no reason given"
