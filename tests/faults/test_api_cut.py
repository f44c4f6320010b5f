"""Fault 6: the client's connection is cut at the commit; it resends with the same Idempotency-Key: one thing.

The moment is made certain by a lock that holds the request inside its transaction.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection

from tests.support.cluster import Api, Cluster
from tests.support.engine import wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient, task_body, task_id
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.seeds import dice
from tests.support.session import POSTGRES
from tests.support.waiting import limit, wait_until
from workers.models import IdempotencyKey, Run


@contextlib.contextmanager
def _commits_held() -> Iterator[None]:
    """No run can be inserted inside the block: requests stand in their transactions, before the INSERT."""
    holder = POSTGRES.connect(str(connection.settings_dict["NAME"]))
    try:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE workers_run IN SHARE MODE")
        yield
    finally:
        holder.close()  # ends its transaction, and with it the lock


def _held_requests() -> int:
    """How many of the API's connections wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'gantry-web' AND wait_event_type = 'Lock'"""
        )
        return int(cursor.fetchone()[0])


class Wire:
    """A request as bytes on a socket of its own, to be cut with a reset at any moment."""

    def __init__(self, api: Api, account: Account, key: str, command: str) -> None:
        address = urlsplit(api.url)
        body = task_body(command)
        head = (
            f"POST /v1/tasks HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {account.token}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._message = head.encode() + body
        self._socket = socket.create_connection(
            (str(address.hostname), int(address.port or 80)), timeout=limit(60)
        )

    def send(self, share: float = 1.0) -> None:
        """Send the first part of the request; 1.0 is all of it."""
        self._socket.sendall(self._message[: int(len(self._message) * share)])

    def cut(self) -> None:
        """Reset: nothing that is on its way arrives, and the server is told so."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


@pytest.mark.parametrize("cut_first", [True, False], ids=["cut, then resent", "resent, then cut"])
def test_cut_at_the_commit(cluster: Cluster, account: Account, shared_folder: Path, cut_first: bool) -> None:
    """Catches a second run for the same key, an answer that is lost for good with its connection."""
    ledger = open_ledger(shared_folder)
    cluster.node()
    api = cluster.api()
    command = ledger_command(ledger, "r")
    wire = Wire(api, account, "k", command)
    with TaskClient(api, account) as client, ThreadPoolExecutor(1) as pool:
        with _commits_held():
            wire.send()
            wait_until(lambda: _held_requests() == 1, why="the request stands before its commit")
            if cut_first:
                wire.cut()
            second = pool.submit(client.post, command, key="k")
            wait_until(lambda: _held_requests() == 2, why="the second one waits for the first one's commit")
            if not cut_first:
                wire.cut()
            assert not Run.objects.exists()
        answer = second.result()
        third = client.post(command, key="k")
    assert answer.status_code == 200, answer.text
    (run_id,) = Run.objects.values_list("id", flat=True)
    assert task_id(answer) == run_id
    assert (third.status_code, task_id(third)) == (200, run_id)
    wait_final(run_id)
    assert Run.objects.count() == IdempotencyKey.objects.count() == 1
    assert_once(ledger, {"r": run_id})
    assert_truth(ledger, "r", run_id)
    assert_invariants(cluster)


def test_cut_at_any_moment(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches what the certain moment does not show: half a request, a cut before or after the commit."""
    _cut_at_any_moment(cluster, account, shared_folder, times=30)


@pytest.mark.long
def test_cut_at_any_moment_often(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """The same with 300 cuts."""
    _cut_at_any_moment(cluster, account, shared_folder, times=300)


def _cut_at_any_moment(cluster: Cluster, account: Account, shared_folder: Path, *, times: int) -> None:
    chance = dice(f"{times} cuts")
    ledger = open_ledger(shared_folder)
    cluster.node()
    api = cluster.api()
    names: dict[str, int] = {}
    with TaskClient(api, account) as client:
        for n in range(times):
            name = f"r{n}"
            command = ledger_command(ledger, name)
            wire = Wire(api, account, name, command)
            wire.send(chance.choice([0.5, 0.99, 1.0, 1.0, 1.0]))
            time.sleep(chance.random() * 0.012)  # pace: somewhere between the accept and the answer
            wire.cut()
            names[name] = client.submit(command, key=name)
    wait_final(*names.values())
    assert Run.objects.count() == len(names), "a cut request and its resend made two runs"
    assert_once(ledger, names)
    assert_invariants(cluster)


def test_half_a_request_is_none(cluster: Cluster, account: Account) -> None:
    """Catches a body that ended early and is taken for a whole one."""
    api = cluster.api()
    for share in (0.3, 0.8, 0.999):
        wire = Wire(api, account, f"k{share}", "true")
        wire.send(share)
        wire.cut()
    with TaskClient(api, account) as client:
        last = client.submit("true")
    assert list(Run.objects.values_list("id", flat=True)) == [last]
    assert not IdempotencyKey.objects.exists()


def _together(start: threading.Barrier, key: str, command: str, client: TaskClient) -> httpx.Response:
    start.wait(limit(60))
    return client.post(command, key=key)


def test_concurrent_requests_with_one_key_make_one_thing(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches two runs for one key, and a request that is refused although its thing was made."""
    ledger = open_ledger(shared_folder)
    cluster.node()
    names: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(6))
        clients = [stack.enter_context(TaskClient(cluster.api(), account)) for _ in range(2)] * 3
        for n in range(20):
            name = f"r{n}"
            send = functools.partial(_together, threading.Barrier(6), name, ledger_command(ledger, name))
            answers = list(pool.map(send, clients))
            assert [answer.status_code for answer in answers] == [200] * 6, answers[0].text
            found = {task_id(answer) for answer in answers}
            assert len(found) == 1, f"key {name} made {found}"
            names[name] = found.pop()
    wait_final(*names.values())
    assert Run.objects.count() == len(names)
    assert_once(ledger, names)
    assert_invariants(cluster)
