"""Clients that mean harm by being slow, in crowds: connections that are held open and get nowhere."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support.waiting import limit

#: What a connection takes of an answer before it stands still: as little as the system lets it.
_TAKES = 4096


def _open(url: str) -> socket.socket:
    parts = urlsplit(url)
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TAKES)
    wire.settimeout(limit(60))
    wire.connect((parts.hostname or "", parts.port or 0))
    return wire


class Crowd:
    """300 connections of five kinds; ``with`` closes them.

    ``log``: path and query of a long log; ``follow``: of a log that is followed, read with ``token``.
    """

    def __init__(self, url: str, *, log: str, follow: str, token: str, each: int = 60) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        held = f"Authorization: Bearer {token}\r\n"
        #: They ask for a long log and read nothing of it.
        self.readers = [self._asks(f"GET {log} HTTP/1.1", "") for _ in range(each)]
        self.followers = [self._asks(f"GET {follow} HTTP/1.1", held) for _ in range(each)]
        #: They announce a body and send a byte of it at each ``drip``: half of them strangers, at the login.
        form = "Content-Type: application/x-www-form-urlencoded\r\nCookie: csrftoken=invented\r\n"
        self.senders = [
            self._asks("POST /v1/tasks HTTP/1.1", f"{held}Content-Length: 100000\r\n")
            if number % 2
            else self._asks("POST /admin/login/ HTTP/1.1", f"{form}Content-Length: 100000\r\n")
            for number in range(each)
        ]
        self.idle = [_open(url) for _ in range(each)]
        #: They never come to the end of their headers.
        self.talkers = [_open(url) for _ in range(each)]
        for wire in self.talkers:
            wire.sendall(f"GET /healthz HTTP/1.1\r\nHost: {self.host}\r\nX-Slow: ".encode())

    def _asks(self, line: str, headers: str) -> socket.socket:
        wire = _open(self.url)
        wire.sendall(f"{line}\r\nHost: {self.host}\r\n{headers}\r\n".encode())
        return wire

    def drip(self) -> None:
        """A byte more of each body and of each header."""
        for wire in (*self.senders, *self.talkers):
            with contextlib.suppress(OSError):  # it was closed: that is what should become of it
                wire.sendall(b"x")

    def all(self) -> Iterator[socket.socket]:
        yield from (*self.readers, *self.followers, *self.senders, *self.idle, *self.talkers)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for wire in self.all():
            wire.close()


def rest(wire: socket.socket) -> tuple[bytes, bool]:
    """What is left to read, and whether the connection was cut (True) or ended in good order."""
    received = bytearray()
    while True:
        try:
            data = wire.recv(65_536)
        except ConnectionError:
            return bytes(received), True
        if not data:
            return bytes(received), False
        received += data
