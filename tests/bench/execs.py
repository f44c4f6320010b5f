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

from tests.bench.containers import AT_ONCE, in_threads
from tests.bench.rig import Client, Rig, interleave
from tests.support import images
from tests.support.cluster import wait_until
from tests.support.engines import Engine
from tests.support.jobs import box

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
    process = rig.node(AT_ONCE, GANTRY_NODE_NAME=_NODE, **engine.env)
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
        began = time.perf_counter()
        started = client.call("POST", f"/api/jobs/{job}/start", {"Target": targets})["Executors"][-1]

        def ended() -> bool:
            results = client.call("GET", f"/api/jobs/{job}/inspect/{started}")["Result"]
            return all(item["Status"] == "FINISHED" and item["ExitCode"] == 0 for item in results)

        wait_until(ended, 120, 0.05, "all end")
        return count / (time.perf_counter() - began)

    def theirs() -> float:
        began = time.perf_counter()
        left = list(range(count))

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
                    time.sleep(0.002)
                if said != b"said\n" or code != 0:
                    raise RuntimeError("an exec of the raw loop failed")
            api.close()

        in_threads(loop)
        return count / (time.perf_counter() - began)

    return interleave(rounds, ours, theirs)
