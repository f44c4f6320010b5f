"""Requests byte by byte to the real server: what a library of a client would tidy up."""

from __future__ import annotations

import contextlib
import socket

from tests.support.cluster import Api
from tests.support.fixtures import Account
from tests.support.waiting import limit


def exchange(api: Api, account: Account | None, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send a request as it stands, then no more; (status, body), (0, b"") when nothing was answered."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    lines = [head, f"Host: {host}:{port}", "Connection: close"]
    if account is not None:
        lines.append(f"Authorization: Bearer {account.token}")
    received = b""
    with socket.create_connection((host, int(port)), timeout=limit(60)) as link:
        link.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        with contextlib.suppress(OSError):
            while data := link.recv(65_536):
                received += data
    head_line, _, rest = received.partition(b"\r\n\r\n")
    return (int(head_line.split()[1]), rest) if head_line else (0, b"")


def send_and_leave(api: Api, account: Account, head: str, body: bytes) -> None:
    """Send a request as it stands and end the connection in good order, before an answer is read."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    lines = [head, f"Host: {host}:{port}", f"Authorization: Bearer {account.token}", "", ""]
    with socket.create_connection((host, int(port)), timeout=limit(60)) as link:
        link.sendall("\r\n".join(lines).encode("latin-1") + body)
