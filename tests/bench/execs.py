"""Mark 6: execs end to end, 8 at once, beside a raw SDK exec loop of 8 threads, on an engine of its own.

Ours has what the loop has not: the kill of the whole tree, output and exit code that outlive the worker.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from django.db import connection

from tests.bench.containers import AT_ONCE, in_threads
from tests.bench.rig import Client, Rig, interleave
from tests.support import images
from tests.support.engines import Engine
from tests.support.jobs import box
from tests.support.waiting import wait_until

_NODE = "execs"
_WORDS = ["sh", "-c", "echo said; true"]


def run(rig: Rig, url: str, *, long: bool) -> None:
    """Measure and print."""
    engine = Engine(rig.folder / "engine-x", "x")
    engine.start()
    try:
        images.load(engine)
        boxes = [box(engine, f"box{number}") for number in range(AT_ONCE)]
        with _node(rig, engine):
            found = _measure(engine, url, boxes, rounds=9 if long else 5, count=160 if long else 80)
    finally:
        engine.stop()
    low, high = found["spread"]
    print(
        f"  6 execs, 8 at once, a second: ours {found['ours']:.1f}, raw SDK loop {found['peer']:.1f}, "
        f"ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f}); mark 0.9 "
        f"{'reached' if found['ratio'] >= 0.9 else 'MISSED'}"
    )
    sys.stdout.flush()


@contextmanager
def _node(rig: Rig, engine: Engine) -> Iterator[None]:
    process = rig.node(AT_ONCE, runtimes="exec", GANTRY_NODE_NAME=_NODE, **engine.env)
    try:
        yield
    finally:
        process.terminate()


def _measure(engine: Engine, url: str, boxes: list[str], *, rounds: int, count: int) -> dict[str, Any]:
    client = Client(url)
    body = {"AppName": "bench", "Name": str(time.time_ns()), "Cmd": "sh -c 'echo said; true'"}
    job = client.call("POST", "/api/jobs", body)["JobId"]
    targets = [{"ContainerId": boxes[n % AT_ONCE], "NodeId": _NODE} for n in range(count)]

    def ours() -> float:
        before, began = _succeeded(), time.perf_counter()
        client.call("POST", f"/api/jobs/{job}/start", {"Target": targets})
        wait_until(lambda: _succeeded() >= before + count, 120, 0.02, "all end")
        return count / (time.perf_counter() - began)

    def theirs() -> float:
        began = time.perf_counter()
        left, lost = list(range(count)), list[bool]()

        def loop() -> None:
            api = docker.APIClient(base_url=engine.url, version="1.41", timeout=60)
            while left:
                try:
                    number = left.pop()
                except IndexError:
                    break
                made = api.exec_create(boxes[number % AT_ONCE], _WORDS)["Id"]
                said = api.exec_start(made)
                # The engine ends the stream a moment before it knows the code.
                while (code := api.exec_inspect(made)["ExitCode"]) is None:
                    time.sleep(0.002)  # pace: the raw loop that is compared with
                # Now and then this engine loses the output of a short exec: the loop has no cure for that.
                lost.append(said != b"said\n")
                if code != 0:
                    raise RuntimeError("an exec of the raw loop failed")
            api.close()

        in_threads(loop)
        if any(lost):
            print(f"    the raw loop got no output from {sum(lost)} of {count}")
        return count / (time.perf_counter() - began)

    return interleave(rounds, ours, theirs)


def _succeeded() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM workers_run WHERE kind = 'exec' AND state = 'SUCCEEDED'")
        return int(cursor.fetchone()[0])
