"""Marks 16 to 18: moments for which somebody waits. The tests prove what is not waited for; here is how long.

16: from TERM to the end of a worker whose broker is silent, and of a deliverer while a receiver hangs.
17: a POST while Redis is silent, against the same while it answers.
18: one look of a node that claims 16 runs, and one that finds a full node, with 100,000 waiting.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
from django.db import connection, transaction

from tests.bench import callbacks
from tests.bench.rig import Client, Rig
from tests.integration.scheduling.test_claiming_scale import fill
from tests.support.cluster import Process, free_port, freeze
from tests.support.waiting import wait_until
from workers.models import Node
from workers.scheduling import claiming
from workers.scheduling.claiming import Memory

_TASK = {"taskName": "bench", "commands": "true", "resources": {"cpu": 0.1, "mem": 256}}


def run(marks: list[str], rig: Rig, ours: str, *, long: bool) -> None:
    if "16" in marks:
        ends(rig, 10 if long else 3)
    if "17" in marks:
        silent(ours, 1000 if long else 200)
    if "18" in marks:
        looks(100_000 if long else 20_000)


# --- 16 -------------------------------------------------------------------------------------------------


def ends(rig: Rig, rounds: int) -> None:
    _show(
        "16 worker with a silent broker, TERM to its end [s]",
        [_worker_ends(rig, number) for number in range(rounds)],
    )
    port = free_port()
    receivers = rig.spawn("receivers", [sys.executable, "-m", "tests.bench.receivers", str(port)])
    wait_until(lambda: callbacks._stats(port) is not None, 30, why="the receivers are up", see=receivers.tail)
    _show(
        "16 deliverer while a receiver hangs, TERM to its end [s]",
        [_deliverer_ends(rig, port, number) for number in range(rounds)],
    )
    print("    the architecture says: within 5 s")


def _worker_ends(rig: Rig, number: int) -> float:
    worker = rig.node(GANTRY_NODE_NAME=f"ends{number}")
    with _redis_silent():
        return _term(worker)


def _deliverer_ends(rig: Rig, port: int, number: int) -> float:
    deliverer = rig.spawn(
        f"ends{number}",
        [sys.executable, "manage.py", "callbacks"],
        DJANGO_SETTINGS_MODULE="config.settings",
        GANTRY_CALLBACK_ALLOW_NETWORKS="127.0.0.0/8",
        GANTRY_CALLBACKS_NAME=f"ends{number}",
        GANTRY_CALLBACK_TIMEOUT_S="600",
    )
    deliverer.wait_said("broker.back")
    tenant_id = callbacks._value("SELECT id FROM workers_tenant ORDER BY id LIMIT 1")
    callbacks._owe(tenant_id, [f"http://127.9.1.{number + 1}:{port}/hang"], f"ends{number}")
    held = "SELECT count(*) FROM workers_callbackreceiver WHERE holder = %s AND lease_until > now()"
    wait_until(lambda: callbacks._value(held, f"ends{number}"), why="it delivers")
    return _term(deliverer)


def _term(process: Process) -> float:
    began = time.perf_counter()
    process.popen.terminate()
    process.popen.wait(120)
    return time.perf_counter() - began


# --- 17 -------------------------------------------------------------------------------------------------


def silent(ours: str, count: int) -> None:
    client = Client(ours)
    posts(client, 20)
    before = posts(client, count)
    with _redis_silent():
        during = posts(client, count)
    for name, values in (("while Redis answers", before), ("while it is silent", during)):
        _show(f"17 POST {name} [ms]", values)
    print("    wanted: p99 at most 100 ms more while it is silent")


def posts(client: Client, count: int) -> list[float]:
    """Milliseconds of each, at a steady pace."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        client.call("POST", "/v1/tasks", _TASK)
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.04)  # pace: the load
    return took


@contextmanager
def _redis_silent() -> Iterator[None]:
    server = redis.Redis.from_url(os.environ["REDIS_URL"])
    pid = int(server.info()["process_id"])
    server.close()
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# --- 18 -------------------------------------------------------------------------------------------------


def looks(runs: int) -> None:
    """In a transaction that is rolled back: what is in the database stays as it is."""
    for tenants, shapes in ((3, 3), (3, 60), (10, 1000)):
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("TRUNCATE workers_run CASCADE")
            node = fill(tenants, shapes, runs)
            memory = Memory()
            claiming.look(node.pk, 1, memory, 1)
            taking = [_timed(lambda: claiming.look(node.pk, 1, memory, 16)) for _ in range(40)]  # noqa: B023
            node.refresh_from_db()
            Node.objects.filter(pk=node.pk).update(cpu_m_total=node.cpu_m_used)
            full = [_timed(lambda: claiming.look(node.pk, 1, memory, 16)) for _ in range(40)]  # noqa: B023
            transaction.set_rollback(True)
        for what, values in (("16 claims", taking), ("full node", full)):
            _show(f"18 look: {runs} wait, {tenants} tenants, {shapes} shapes, {what} [ms]", values)
    print("    wanted: a median below 100 ms for 16 claims")


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _show(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"  {name}: p50 {statistics.median(ordered):.1f}, p99 {late:.1f}, worst {ordered[-1]:.1f}")
    sys.stdout.flush()
