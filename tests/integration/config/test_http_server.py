"""The API behind its real server: what only shows on the wire (chunks, odd headers, reason phrases)."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterable

import pytest
from django.db import connection, transaction

from tests.integration.logs.log_runs import STDOUT, running
from tests.support.cluster import Api, Cluster
from tests.support.fixtures import Account, make_account
from tests.support.waiting import limit, wait_until
from workers.logs import store
from workers.models import Run

BODY = b'{"taskName": "wire", "commands": "true"}'


@pytest.fixture
def served(cluster: Cluster) -> tuple[Api, Account]:
    return cluster.api(threads=2), make_account("default")


def exchange(
    served: tuple[Api, Account],
    head: str,
    parts: Iterable[bytes] = (),
    *,
    token: bool = True,
    pause: float = 0.0,
) -> tuple[str, bytes]:
    """Send a request byte by byte as given; returns (status line, body)."""
    api, account = served
    host, _, port = api.url.removeprefix("http://").partition(":")
    lines = [head, f"Host: {host}:{port}", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {account.token}")
    with socket.create_connection((host, int(port)), timeout=limit(60)) as wire:
        received = b""
        try:
            wire.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            for part in parts:
                time.sleep(pause)  # pace: a slow client
                wire.sendall(part)
        except OSError:
            pass  # it has answered without waiting for the rest
        try:
            while data := wire.recv(65_536):
                received += data
        except OSError:
            pass
    header, _, body = received.partition(b"\r\n\r\n")
    return header.split(b"\r\n")[0].decode(), body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def post(length: int, *more: str) -> str:
    return "\r\n".join(["POST /v1/tasks HTTP/1.1", f"Content-Length: {length}", *more])


def test_bodies_on_the_wire(served: tuple[Api, Account]) -> None:
    chunked = "POST /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked"
    end = b"0\r\n\r\n"
    accepted = {
        "plain": (post(len(BODY)), [BODY]),
        "in pieces": (post(len(BODY)), [BODY[:5], BODY[5:20], BODY[20:]]),
        "chunked": (chunked, [chunk(BODY[:7]), chunk(BODY[7:]), end]),
        "as a form": (post(len(BODY), "Content-Type: application/x-www-form-urlencoded"), [BODY]),
        "a charset that is none": (post(len(BODY), "Content-Type: text/plain; charset=us-ascii"), [BODY]),
    }
    for name, (head, parts) in accepted.items():
        status, body = exchange(served, head, parts, pause=0.02)
        assert status == "HTTP/1.1 200 OK", (name, body)
    assert Run.objects.count() == len(accepted)
    large = [chunk(b"a" * 65_536)] * 32
    refused = {
        "too large": (post(2_000_000), [b"a" * 2_000_000], "413 Payload Too Large"),
        "too large, nothing sent": (post(2_000_000), [], "413 Payload Too Large"),
        "too large in chunks": (chunked, [*large, end], "413 Payload Too Large"),
        "parameters of RFC 2231": (
            post(len(BODY), "Content-Type: text/plain; charset*=none''x"),
            [BODY],
            "415 Unsupported Media Type",
        ),
        "no text": (
            post(len(BODY), "Content-Type: text/plain; charset=hex"),
            [BODY],
            "415 Unsupported Media Type",
        ),
    }
    for name, (head, parts, wanted) in refused.items():
        status, body = exchange(served, head, parts)
        assert status == f"HTTP/1.1 {wanted}", (name, status)
        assert json.loads(body)["status"] == -2127560592, name
    assert Run.objects.count() == len(accepted)


def test_old_clients_post_nothing_at_all(served: tuple[Api, Account]) -> None:
    status, body = exchange(served, "POST /v1/tasks/kill?taskId=1 HTTP/1.1")
    assert status == "HTTP/1.1 400 Bad Request"
    assert json.loads(body)["status"] == -2127560608
    assert exchange(served, "POST /v1/tasks/kill?taskId=1 HTTP/1.0")[0].endswith("400 Bad Request")


def test_reason_phrases_and_odd_requests(served: tuple[Api, Account]) -> None:
    for head, status in (
        ("GET /v1/tasks?taskIds=1 HTTP/1.1\r\nContent-Type: text/plain; charset=hex", "200 OK"),
        ("GET /v1/tasks/%00 HTTP/1.1", "400 Bad Request"),
        ("GET /api/v1/runs?name=%00 HTTP/1.1", "400 Bad Request"),
        ("GET /api/v1/runs?name=%ED%A0%80 HTTP/1.1", "200 OK"),
        ("GET /v1/tasks/%FF HTTP/1.1", "404 Not Found"),
        ("GET /v1/tasks?taskIds=1 HTTP/1.1\r\nX-Tenant-Id: \xff", "403 Forbidden"),
        ("GET /v1/tasks?taskIds=1 HTTP/1.1\r\nX-Tenant-Id: default\r\nX-Tenant-Id: default", "403 Forbidden"),
        ("DELETE /v1/tasks HTTP/1.1", "405 Method Not Allowed"),
        ("BREW /v1/tasks HTTP/1.1", "405 Method Not Allowed"),
        ("GET /api/v1/runs/1/retry HTTP/1.1", "405 Method Not Allowed"),
        ("GET /nothing HTTP/1.1", "404 Not Found"),
    ):
        assert exchange(served, head)[0] == f"HTTP/1.1 {status}", head


@pytest.mark.parametrize(
    "headers",
    [
        "X-Callback-Url: http://receiver.example/\xfc",
        "X-Callback-Url:",
        "Idempotency-Key: \xfc",
        "Idempotency-Key: a\xfcb",
    ],
)
def test_a_header_that_is_there_and_unreadable_is_not_absent(
    served: tuple[Api, Account], headers: str
) -> None:
    """Catches a URL beyond ASCII that is taken for none: accepted, and nobody is ever called."""
    status, answer = exchange(served, post(len(BODY), headers), [BODY])
    assert status == "HTTP/1.1 400 Bad Request", answer
    assert headers.partition(":")[0] in answer.decode(), answer
    assert not Run.objects.exists()


def test_a_head_request_has_the_length_and_no_body(served: tuple[Api, Account]) -> None:
    status, body = exchange(served, "HEAD /api/v1/runs HTTP/1.1")
    assert (status, body) == ("HTTP/1.1 200 OK", b"")


def test_changes_are_logged_with_who_and_the_query_is_not(served: tuple[Api, Account]) -> None:
    api, account = served
    exchange(served, post(len(BODY), "X-Request-Id: find-me"), [BODY])
    exchange(served, "POST /v1/tasks/kill?taskId=1&secret=canary HTTP/1.1")
    exchange(served, "GET /v1/tasks?taskIds=1 HTTP/1.1\r\nX-Request-Id: quiet")
    wait_until(lambda: "kill" in api.text(), why="the second change is in the log")
    lines = [line for line in api.text().splitlines() if "gantry.http" in line]
    (line,) = [line for line in lines if "find-me" in line]
    for part in ("/v1/tasks", "POST", "200", "default", account.user, "tasks", "token"):
        assert part in line
    assert "canary" not in api.text()
    assert "quiet" not in api.text()
    assert account.token not in api.text()


def test_nobody_makes_a_thread_wait_for_a_body(cluster: Cluster) -> None:
    """Two threads serve; four clients, strangers among them, announce bodies that never come."""
    api, account = cluster.api(threads=2, GANTRY_BODY_S="2"), make_account("default")
    host, _, port = api.url.removeprefix("http://").partition(":")
    wires = []
    try:
        for head in ("Transfer-Encoding: chunked", "Content-Length: 100"):
            for who in ("X-Nobody: x", f"X-Token: {account.token}"):
                wire = socket.create_connection((host, int(port)), timeout=limit(60))
                wires.append(wire)
                lines = ["POST /v1/tasks HTTP/1.1", f"Host: {host}:{port}", head, who]
                wire.sendall("\r\n".join([*lines, "", ""]).encode())
        assert exchange((api, account), "GET /healthz HTTP/1.1")[0] == "HTTP/1.1 200 OK"
        assert exchange((api, account), post(len(BODY)), [BODY])[0] == "HTTP/1.1 200 OK"
        told = [wire.recv(12) for wire in wires]
        assert told == [b"HTTP/1.1 401", b"HTTP/1.1 408"] * 2
    finally:
        for wire in wires:
            wire.close()
    assert Run.objects.count() == 1


def test_an_answer_that_fails_in_the_middle_does_not_look_whole(cluster: Cluster) -> None:
    """Catches what the server does by itself: it ends such an answer like one that is whole."""
    account, run = make_account("log-tests"), running()
    with transaction.atomic(), connection.cursor() as cursor:
        for number in range(8):
            store.insert(cursor, [(run.id, run.attempt, STDOUT, number * 2**20, b"x" * 2**20)])
    api = cluster.api(threads=2)
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.settimeout(limit(60))
        wire.connect((host, int(port)))
        lines = [
            f"GET /api/v1/runs/{run.id}/logs HTTP/1.1",
            f"Host: {host}:{port}",
            f"X-Token: {account.token}",
        ]
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        assert wire.recv(12) == b"HTTP/1.1 200"
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE workers_logchunk RENAME TO away")
        try:
            received = b""
            with contextlib.suppress(ConnectionError):
                while data := wire.recv(65_536):
                    received = (received + data)[-100:]
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE away RENAME TO workers_logchunk")
    assert not received.endswith(b"0\r\n\r\n")
    assert "serving.cut" in api.text()
