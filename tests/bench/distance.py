"""Mark 13: mark 1 at 64 connections and mark 3 at 64 units with Postgres and Redis 2 ms away, against 0 ms.

API and worker reach both through relays in either case: what a relay costs is in both figures.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg2

from tests.bench.rig import Rig, interleave
from tests.support.cluster import Process, free_port
from tests.support.proxy import upstream_of, url_at
from tests.support.waiting import wait_until

_FAR, _NEAR = signal.SIGUSR2, signal.SIGUSR1


def measure(
    rig: Rig,
    rounds: int,
    submit: Callable[[str], float],
    commands: Callable[[str], float],
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Of an API's URL: submits and no-op commands per second, ``ours`` far away, ``peer`` near; what a
    question takes."""
    relays = {name: _relay(rig, os.environ[name], name) for name in ("DATABASE_URL", "REDIS_URL")}
    settings = {name: url for name, (_, url) in relays.items()}

    def at(distance: signal.Signals, work: Callable[[], float]) -> Callable[[], float]:
        def measured() -> float:
            for relay, _ in relays.values():
                os.kill(relay.pid, distance)
            time.sleep(0.5)  # pace: between two measurements
            return work()

        return measured

    def compared(work: Callable[[], float]) -> dict[str, Any]:
        return interleave(rounds, at(_FAR, work), at(_NEAR, work))

    trips = [at(distance, lambda: _question_ms(settings["DATABASE_URL"]))() for distance in (_FAR, _NEAR)]
    # As `make up` starts it: eight threads could not keep 64 connections busy while they wait.
    url = rig.api("distant", "config.settings", workers=2, threads=16, env=settings)
    api = rig.processes[-1]
    submits = compared(lambda: submit(url))
    worker = rig.node(64, **settings)
    ends = compared(lambda: commands(url))
    for process in (worker, api):
        process.terminate()
    return submits, ends, f"a question takes {trips[0]:.1f} ms, near {trips[1]:.1f} ms"


def _relay(rig: Rig, server: str, name: str) -> tuple[Process, str]:
    upstream, port = upstream_of(server), free_port()
    where = upstream if isinstance(upstream, str) else f"{upstream[0]}:{upstream[1]}"
    relay = rig.spawn(f"relay-{name}", [sys.executable, "-m", "tests.bench.relay", str(port), where])
    wait_until(lambda: "listens" in relay.text() or not relay.alive, 30, why="the relay listens")
    return relay, url_at(server, port)


def _question_ms(url: str) -> float:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        began = time.perf_counter()
        for _ in range(100):
            cursor.execute("SELECT 1")
        return (time.perf_counter() - began) * 10
