"""Mark 15: deliveries to 1,000 healthy receivers while 50 others hang, against the same while none hangs.

The receivers run in a process of their own; both are told to start by the same rows. Callbacks are written
as a family would owe them, in one transaction; the clock runs from its commit to the last acceptance.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any

from django.db import connection, transaction

from tests.bench.rig import Rig, interleave
from tests.support.cluster import free_port
from tests.support.waiting import wait_until
from workers.callbacks import outbox

HEALTHY, HANGING = 1000, 50


def measure(rig: Rig, rounds: int, *, long: bool) -> dict[str, Any]:
    """Deliveries per second: ``ours`` while others hang, ``peer`` while none does."""
    port = free_port()
    receivers = rig.spawn("receivers", [sys.executable, "-m", "tests.bench.receivers", str(port)])
    wait_until(lambda: _stats(port) is not None or not receivers.alive, 30, why="the receivers are up")
    deliverer = rig.spawn(
        "callbacks",
        [sys.executable, "manage.py", "callbacks"],
        DJANGO_SETTINGS_MODULE="config.settings",
        GANTRY_CALLBACK_ALLOW_NETWORKS="127.0.0.0/8",
        GANTRY_CALLBACKS_NAME="bench",
        GANTRY_CALLBACK_TIMEOUT_S="5" if long else "3",
    )
    wait_until(lambda: "broker.back" in deliverer.text() or not deliverer.alive, 30, why="it is up")
    tenant_id = _value("SELECT id FROM workers_tenant ORDER BY id LIMIT 1")
    each = 5 if long else 1
    _deliver(tenant_id, port, "warm", 1)
    rounds_done = [0]

    def calm() -> float:
        _forget_hanging()
        rounds_done[0] += 1
        return _deliver(tenant_id, port, f"calm{rounds_done[0]}", each)

    def disturbed() -> float:
        # All of them hang for the first time as far as the service knows: the worst moment is in the figure.
        _forget_hanging()
        rounds_done[0] += 1
        _owe(tenant_id, [f"http://127.9.0.{n + 1}:{port}/hang" for n in range(HANGING)], f"h{rounds_done[0]}")
        return _deliver(tenant_id, port, f"busy{rounds_done[0]}", each)

    return interleave(rounds, disturbed, calm)


def _deliver(tenant_id: int, port: int, name: str, each: int) -> float:
    urls = [
        f"http://127.8.{number // 250}.{number % 250 + 1}:{port}/ok"
        for _ in range(each)
        for number in range(HEALTHY)
    ]
    began = time.perf_counter()
    _owe(tenant_id, urls, name)
    query = (
        "SELECT count(*) FROM workers_callback WHERE owner_kind = 'bench' AND event = %s AND state = 'due'"
    )
    wait_until(lambda: _value(query, name) == 0, 300, 0.02, "all are delivered")
    return len(urls) / (time.perf_counter() - began)


def _owe(tenant_id: int, urls: list[str], name: str) -> None:
    rows = [
        (
            *(tenant_id, "tasks", "bench", f"{name}-{number}", None, 1, name[:32]),
            *(outbox.message_id(), url, outbox.receiver(url), '{"taskId": 1, "result": "FINISHED"}', False),
        )
        for number, url in enumerate(urls)
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        for start in range(0, len(rows), 500):
            outbox.insert(cursor, rows[start : start + 500])


def _forget_hanging() -> None:
    """End what hangs: the next round begins like the first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE workers_callback SET state = 'dead', next_at = NULL
               WHERE owner_kind = 'bench' AND state = 'due'"""
        )
    query = "SELECT count(*) FROM workers_callbackreceiver WHERE lease_until > now()"
    wait_until(lambda: _value(query) == 0, 90, 0.1, "nothing is under way")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM workers_callbackreceiver WHERE address LIKE 'http://127.9.%%'")


def _value(text: str, *params: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        row = cursor.fetchone()
    return row[0] if row else None


def _stats(port: int) -> Any:
    try:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        asked.request("GET", "/stats")
        return json.loads(asked.getresponse().read())
    except (OSError, ValueError):
        return None
