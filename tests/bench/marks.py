"""Marks 1 to 4: durable submit, reads, no-op commands end to end, latency of a command; calls the others."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from typing import Any

import django

django.setup()

from django.db import connection

from tests.bench import containers, distance, execs
from tests.bench.peer_urls import TABLE
from tests.bench.rig import Client, Rig, interleave, wrk
from tests.support.waiting import wait_until

TASK = {"taskName": "bench", "commands": "true", "resources": {"cpu": 0.1, "mem": 256}}
ITEM = {"name": "bench", "command": "true", "cpu": 0.1}


def run(marks: list[str], *, long: bool) -> int:
    """Measure the named marks and print them."""
    _sql(TABLE)
    _sql("CREATE TABLE IF NOT EXISTS bench_latency (key text PRIMARY KEY, seconds double precision)")
    rounds, seconds = (9, 6.0) if long else (5, 3.0)
    rig = Rig()
    try:
        ours = peer = ""
        if set(marks) - {"13", "15"}:
            ours, peer = rig.api("api", "config.settings"), rig.api("peer", "tests.bench.peer_settings")
        if "1" in marks:
            _show("1 durable submit, 8 connections [1/s]", 0.6, submit(ours, peer, rounds, seconds))
            _nothing_waits()
        if "2" in marks:
            one, hundred = reads(ours, peer, rounds, seconds)
            _show("2 one task read [1/s]", 0.6, one)
            print(f"  2 batch of 100 ids: {hundred:.0f} requests/s = {hundred * 100:.0f} tasks/s")
        if "15" in marks:
            from tests.bench import callbacks

            _show(
                "15 callbacks while 50 receivers hang [1/s]",
                0.9,
                callbacks.measure(rig, rounds if long else 2, long=long),
            )
        if "13" in marks:
            away(rig, rounds, seconds, 1000 if long else 400)
        if "3" in marks or "4" in marks:
            rig.node()
            rig.peer_worker()
        if "3" in marks:
            _show(
                "3 no-op commands end to end [1/s]",
                0.8,
                end_to_end(ours, peer, rounds, 2000 if long else 400),
            )
        if "4" in marks:
            latency(ours, peer, 400 if long else 100)
        if "3" in marks or "4" in marks:
            for name in ("node", "peer-worker"):
                rig.named(name).terminate()
        if transferred := [mark for mark in ("7", "8", "9") if mark in marks]:
            from tests.bench import transfers

            transfers.run(rig, transferred, long=long)
        if "10" in marks:
            from tests.bench import staging

            staging.run(rig, long=long)
        if "11" in marks:
            from tests.bench import waiting

            waiting.run(ours, long=long)
        if "5" in marks or "14" in marks:
            containers.run(marks, rig, ours, long=long)
        if "6" in marks:
            execs.run(rig, ours, long=long)
        if "19" in marks:
            from tests.bench import crowds

            crowds.run(ours, long=long)
        if {"16", "17", "18"} & set(marks):
            from tests.bench import moments

            moments.run(marks, rig, ours, long=long)
    finally:
        rig.stop()
    return 0


def submit(ours: str, peer: str, rounds: int, seconds: float) -> dict[str, Any]:
    return interleave(
        rounds,
        lambda: wrk(f"{ours}/v1/tasks", seconds, body=TASK),
        lambda: wrk(f"{peer}/bare", seconds, body=ITEM),
    )


def reads(ours: str, peer: str, rounds: int, seconds: float) -> tuple[dict[str, Any], float]:
    client, other = Client(ours), Client(peer)
    ids = [client.call("POST", "/v1/tasks", TASK)["data"]["taskId"] for _ in range(100)]
    item = other.call("POST", "/bare", ITEM)["id"]
    one = interleave(
        rounds,
        lambda: wrk(f"{ours}/v1/tasks/{ids[0]}", seconds),
        lambda: wrk(f"{peer}/bare/{item}", seconds),
    )
    batch = f"{ours}/v1/tasks?taskIds={','.join(map(str, ids))}"
    hundred = statistics.median(wrk(batch, seconds) for _ in range(rounds))
    _sql("UPDATE workers_run SET state = 'CANCELLED', finished_at = now() WHERE state = 'PENDING'")
    return one, hundred


def end_to_end(ours: str, peer: str, rounds: int, count: int) -> dict[str, Any]:
    """From the first POST to the last end, over 8 connections."""
    return interleave(
        rounds,
        lambda: commands(ours, count),
        lambda: _until_ended(peer, "/delay", ITEM, count, "bench_item WHERE state = 'done'"),
    )


def commands(url: str, count: int) -> float:
    """No-op commands per second, from the first POST to the last end."""
    return _until_ended(url, "/v1/tasks", TASK, count, "workers_run WHERE state = 'SUCCEEDED'")


def _until_ended(url: str, path: str, body: object, count: int, ended: str) -> float:
    before = _value(f"SELECT count(*) FROM {ended}")
    began = time.perf_counter()
    _post_all(url, path, body, count)
    wait_until(lambda: _value(f"SELECT count(*) FROM {ended}") >= before + count, 120, 0.02, "all end")
    return count / (time.perf_counter() - began)


def away(rig: Rig, rounds: int, seconds: float, count: int) -> None:
    """Mark 13: the services 2 ms away from each other."""

    def submit(url: str) -> float:
        found = wrk(f"{url}/v1/tasks", seconds, connections=64, body=TASK)
        _nothing_waits()
        return found

    submits, ends, trip = distance.measure(rig, rounds, submit, lambda url: commands(url, count))
    _show("13 durable submit, 64 connections, 2 ms more against 0 [1/s]", 0.8, submits)
    _show("13 no-op commands, 64 units, 2 ms more against 0 [1/s]", 0.8, ends)
    print(f"  13 {trip}")


def _nothing_waits() -> None:
    _sql("UPDATE workers_run SET state = 'CANCELLED', finished_at = now() WHERE state = 'PENDING'")
    _sql("VACUUM ANALYZE workers_run")


def latency(ours: str, peer: str, count: int) -> None:
    """POST sent to the command's own first timestamp, on an idle system; raw Celery beside it."""
    from tests.bench.peer_celery import latency as raw

    client = Client(ours)
    task = {**TASK, "commands": "exec date +%s.%N"}
    mine, theirs = [], []
    for index in range(count):
        mine.append(_command_latency(client, task) * 1000)
        time.sleep(0.1)  # pace: an idle system
        raw.delay(time.time(), str(index))
        theirs.append(_await("SELECT seconds FROM bench_latency WHERE key = %s", str(index)) * 1000)
        time.sleep(0.1)  # pace: an idle system
    for name, values in (("POST to first timestamp of the command", mine), ("raw Celery message", theirs)):
        values.sort()
        middle, late = statistics.median(values), values[int(len(values) * 0.99) - 1]
        print(f"  4 {name}: p50 {middle:.1f} ms, p99 {late:.1f} ms, worst {values[-1]:.1f} ms")
    print("    mark: p50 <= 15 ms, p99 <= 50 ms")
    sys.stdout.flush()


def _command_latency(client: Client, task: object) -> float:
    """Seconds from just before the POST to the time that the command itself prints first."""
    sent = time.time()
    task_id = client.call("POST", "/v1/tasks", task)["data"]["taskId"]
    _await("SELECT id FROM workers_run WHERE id = %s AND state = 'SUCCEEDED'", task_id)
    return (
        float(_value("SELECT convert_from(data, 'utf8') FROM workers_logchunk WHERE run_id = %s", task_id))
        - sent
    )


def _await(query: str, key: object) -> Any:
    """The value of a query as soon as it has one."""
    return wait_until(lambda: _value(query, key), 30, 0.02)


def _post_all(url: str, path: str, body: object, count: int) -> None:
    def post(share: int) -> None:
        client = Client(url)
        for _ in range(share):
            client.call("POST", path, body)

    threads = [threading.Thread(target=post, args=(count // 8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _show(name: str, mark: float, found: dict[str, Any]) -> None:
    low, high = found["spread"]
    verdict = "reached" if found["ratio"] >= mark else "MISSED"
    print(
        f"  {name}: ours {found['ours']:.0f}, peer {found['peer']:.0f}, ratio {found['ratio']:.2f} "
        f"({low:.2f} to {high:.2f}); mark {mark} {verdict}"
    )
    sys.stdout.flush()


def _sql(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)


def _value(text: str, *params: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        row = cursor.fetchone()
    return row[0] if row else None
