"""A receiver of callbacks as a client would run one: it verifies, remembers, and misbehaves when told to.

One server for every address of 127.0.0.0/8: each host is a receiver of its own to the service. What a path
does is said by ``answers``; every request is kept whole.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.waiting import limit

Answer = Callable[[BaseHTTPRequestHandler], None]

#: Settings of processes that may reach the receivers of tests.
OPEN = {"GANTRY_CALLBACK_ALLOW_NETWORKS": "127.0.0.0/8"}


@dataclass
class Delivery:
    """One request as it came."""

    host: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def verified(self, secret: str) -> dict[str, Any]:
        """The body, if the signature is right: a receiver's three lines."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


class Receivers:
    """``with Receivers() as them: them.url(host=3, path="/a")``."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        #: By path; for "/a" also "/a/1".
        self.answers: dict[str, Answer] = {}
        #: Requests that have not been answered yet, now and most at once, by host.
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._take(self)

            do_GET = do_POST  # noqa: N815 the base class looks for this name

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class' name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *args: Any) -> None:
                pass  # connections are cut on purpose

        self._server = Server(("0.0.0.0", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Receivers:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str = "/", host: int = 1) -> str:
        """The URL of a path at the receiver number ``host`` (1 to 60000)."""
        return f"http://127.1.{host // 250}.{host % 250 + 1}:{self.port}{path}"

    def at(self, path: str) -> list[Delivery]:
        """What came for a path, in order."""
        with self._lock:
            return [item for item in self.got if item.path == path]

    def waiting(self) -> int:
        """How many requests have not been answered yet."""
        with self._lock:
            return sum(self.under_way.values())

    def ids(self, path: str) -> list[str]:
        return [item.id for item in self.at(path)]

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in request.headers.items()}
        host = headers.get("host", "")
        with self._lock:
            self.got.append(Delivery(host, request.path, headers, body))
            self.under_way[host] = self.under_way.get(host, 0) + 1
            self.most[host] = max(self.most.get(host, 0), self.under_way[host])
        left = threading.Event()

        def leave() -> None:
            with self._lock:
                if not left.is_set():
                    left.set()
                    self.under_way[host] -= 1

        request.leave = leave  # type: ignore[attr-defined]  # an answer calls it before it goes out
        try:
            name = "/" + request.path.lstrip("/").partition("/")[0]
            self.answers.get(request.path, self.answers.get(name, ok))(request)
        finally:
            leave()


def status(code: int, **headers: str) -> Answer:
    """Answers with a status and nothing else."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.leave()  # type: ignore[attr-defined]
        request.send_response(code)
        for name, value in {**headers, "Content-Length": "0"}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


ok = status(200)


def first(count: int, bad: Answer, then: Answer = ok) -> Answer:
    """``bad`` for the first requests, ``then`` for the rest."""
    left = [count]
    lock = threading.Lock()

    def answer(request: BaseHTTPRequestHandler) -> None:
        with lock:
            left[0] -= 1
            now = bad if left[0] >= 0 else then
        now(request)

    return answer


def held(gate: threading.Event, then: Answer = ok) -> Answer:
    """Takes the request and answers when it is told to."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        assert gate.wait(limit(300)), "nobody opens the gate"
        then(request)

    return answer


def hang(seconds: float = 600.0) -> Answer:
    """Takes the request and says nothing; ends when the client does."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.connection.settimeout(seconds)
        with contextlib.suppress(OSError):
            request.connection.recv(1)
        request.close_connection = True

    return answer


def _drip(request: BaseHTTPRequestHandler, head: bytes) -> None:
    with contextlib.suppress(OSError):
        request.wfile.write(head)
        while True:  # until the client has gone
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)  # pace: a slow peer
    request.close_connection = True


def drip(request: BaseHTTPRequestHandler) -> None:
    """Headers byte by byte, without an end."""
    _drip(request, b"HTTP/1.1 200 OK\r\nX: ")


def drip_body(request: BaseHTTPRequestHandler) -> None:
    """Says 200 at once, and then a body without an end."""
    _drip(request, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")


def flood(request: BaseHTTPRequestHandler) -> None:
    """Says 200, and sends megabytes."""
    with contextlib.suppress(OSError):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(1000):
            request.wfile.write(b"x" * 65536)
    request.close_connection = True


def reset(request: BaseHTTPRequestHandler) -> None:
    """Cuts the connection."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
    request.close_connection = True
