"""Mark 19: what others wait while 300 connections get nowhere, against the same while nobody is there."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.db import connection, transaction

from tests.bench.rig import Client
from tests.integration.logs.log_runs import STDOUT, running
from tests.support.crowd import Crowd
from tests.support.fixtures import make_account
from workers.logs import signed_urls, store

_TASK = {"taskName": "bench", "commands": "true", "resources": {"cpu": 0.1, "mem": 256}}
_MIB = 1024 * 1024
_LOG_MIB = 10
_DRIP_S = 0.5


def run(ours: str, *, long: bool) -> None:
    """p50 and p99 of submissions and reads, in turn without and with the crowd."""
    run = running()
    with transaction.atomic(), connection.cursor() as cursor:
        for number in range(_LOG_MIB):
            store.insert(cursor, [(run.id, run.attempt, STDOUT, number * _MIB, b"x" * _MIB)])
    path = f"/v1/tasks/{run.id}/logs"
    signed = urlsplit(signed_urls.log_url(path, "stdout"))
    token = make_account("log-tests").token
    alone: list[dict[str, list[float]]] = []
    beside: list[dict[str, list[float]]] = []
    for _ in range(9 if long else 5):
        alone.append(_measured(ours))
        crowd = Crowd(ours, log=f"{path}?{signed.query}", follow=f"{path}?follow=1", token=token)
        with crowd, _dripping(crowd):
            beside.append(_measured(ours))
    run.finish()
    for what in ("submit", "read"):
        ratios = sorted(_p99(b[what]) / _p99(a[what]) for a, b in zip(alone, beside, strict=True))
        all_of = [[value for each in rounds for value in each[what]] for rounds in (beside, alone)]
        (p50, p99), (p50_alone, p99_alone) = ((statistics.median(each), _p99(each)) for each in all_of)
        print(
            f"19 {what} beside a crowd that gets nowhere, p50 / p99 [ms]: {p50:.1f} / {p99:.1f}; alone "
            f"{p50_alone:.1f} / {p99_alone:.1f}; p99 {statistics.median(ratios):.2f} times "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})   [mark: below 3]"
        )


@contextmanager
def _dripping(crowd: Crowd) -> Iterator[None]:
    over = threading.Event()

    def drip() -> None:
        while not over.wait(_DRIP_S):
            crowd.drip()

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _measured(url: str, times: int = 300) -> dict[str, list[float]]:
    client = Client(url)
    found: dict[str, list[float]] = {"submit": [], "read": []}
    for _ in range(times):
        begun = time.perf_counter()
        task = client.call("POST", "/v1/tasks", _TASK)["data"]["taskId"]
        posted = time.perf_counter()
        client.call("GET", f"/v1/tasks/{task}")
        found["submit"].append((posted - begun) * 1000)
        found["read"].append((time.perf_counter() - posted) * 1000)
    return found


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
