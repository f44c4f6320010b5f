"""Marks 5 and 14: containers end to end beside a raw SDK loop, and what a worker costs while it watches many.

An engine of its own, as the tests have them; needs root and dockerd.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from django.db import connection

from tests.bench.rig import Client, Rig, interleave
from tests.support import images
from tests.support.cluster import Process
from tests.support.engines import Engine
from tests.support.images import BUSYBOX
from tests.support.waiting import wait_until

AT_ONCE = 8
_WATCHED = 64
#: What of our create call the peer's repeats; the rest is names and labels.
_SAME = ("Image", "Env", "User", "WorkingDir", "Cmd")


def _task(script: str, cpu: float) -> dict[str, Any]:
    box = {"type": "DOCKER", "docker": {"image": BUSYBOX, "forcePullImage": False}}
    args = ["/bin/sh", "-c", script]
    return {"taskName": "bench", "container": box, "args": args, "resources": {"cpu": cpu, "mem": 256}}


def run(marks: list[str], rig: Rig, url: str, *, long: bool) -> None:
    """Measure the named marks and print them."""
    engine = Engine(rig.folder / "engine")
    engine.start()
    try:
        images.load(engine)
        if "5" in marks:
            # As many CPUs as containers at once, of one CPU each.
            with _node(rig, engine, slots=AT_ONCE, cpus=AT_ONCE):
                _show(throughput(engine, url, rounds=9 if long else 5, count=80 if long else 40))
        if "14" in marks:
            with _node(rig, engine, slots=_WATCHED, cpus=_WATCHED / 10) as worker:
                watched(engine, url, (worker, rig.named("api")), seconds=3600 if long else 600)
    finally:
        engine.stop()


class _node:  # noqa: N801 reads like a function
    """A worker on the engine, for the time of a block."""

    def __init__(self, rig: Rig, engine: Engine, *, slots: int, cpus: float) -> None:
        self._started: Callable[[], Process] = lambda: rig.node(
            slots,
            runtimes="container",
            GANTRY_NODE_CPUS=str(cpus),
            GANTRY_NODE_NAME=f"boxes{slots}",
            **engine.env,
        )

    def __enter__(self) -> Process:
        self._process = self._started()
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()


def throughput(engine: Engine, url: str, *, rounds: int, count: int) -> dict[str, Any]:
    """Containers a second, 8 at once, from the first request until the last is gone; the same HostConfig."""
    same = _our_create_call(engine, url)

    def ours() -> float:
        return _end_to_end(engine, url, count)

    def theirs() -> float:
        began = time.perf_counter()
        in_threads(lambda: _raw(engine.url, same, count // AT_ONCE))
        return count / (time.perf_counter() - began)

    return interleave(rounds, ours, theirs)


def _end_to_end(engine: Engine, url: str, count: int) -> float:
    task = _task("true", 1.0)
    began = time.perf_counter()

    def post() -> None:
        client = Client(url)
        for _ in range(count // AT_ONCE):
            client.call("POST", "/v1/tasks", task)

    before = _succeeded()
    in_threads(post)
    wait_until(lambda: _succeeded() >= before + count, 120, 0.02, "all end")
    wait_until(lambda: not engine.client.api.containers(all=True), 30, 0.02, "all are removed")
    return count / (time.perf_counter() - began)


def _our_create_call(engine: Engine, url: str) -> dict[str, Any]:
    """What our worker asks the engine for, less its names and its folder."""
    client = Client(url)
    task_id = client.call("POST", "/v1/tasks", _task("sleep 600", 1.0))["data"]["taskId"]
    found = wait_until(engine.containers, 30, why="our container is there")[0]
    client.call("POST", f"/v1/tasks/kill?taskId={task_id}")
    wait_until(lambda: not engine.containers(), 40, why="it is removed")
    host = {key: value for key, value in found["HostConfig"].items() if key not in ("Mounts", "Binds")}
    config = {key: found["Config"][key] for key in _SAME}
    return {**config, "Cmd": ["/bin/sh", "-c", "true"], "HostConfig": {**host, "Binds": ["/tmp:/sandbox"]}}


def _raw(url: str, config: dict[str, Any], count: int) -> None:
    """The loop that a program of its own would have: create, start, wait, logs, remove."""
    api = docker.APIClient(base_url=url, version="1.41", timeout=60)
    for _ in range(count):
        box = api.create_container_from_config(config)["Id"]
        api.start(box)
        if api.wait(box)["StatusCode"] != 0:
            raise RuntimeError("a container of the raw loop failed")
        api.logs(box)
        api.remove_container(box)
    api.close()


def in_threads(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- mark 14 --------------------------------------------------------------------------------------------


def watched(engine: Engine, url: str, processes: tuple[Process, Process], *, seconds: float) -> None:
    """What a worker costs while 64 containers do nothing, and the API while it is asked for them: in
    each quarter of ``seconds``."""
    worker, api = processes
    print(f"  14 idle worker: {_costs(engine, worker.pid)}; API: {_api_mb(api):.0f} MiB per process")
    client = Client(url)
    ids = [client.call("POST", "/v1/tasks", _task("sleep 36000", 0.1))["data"]["taskId"] for _ in range(64)]
    wait_until(lambda: _running() == _WATCHED, 180, why=f"{_WATCHED} containers run")
    time.sleep(5.0)  # pace: until they are quiet
    print(f"  14 with {_WATCHED} containers: {_costs(engine, worker.pid)}")
    sys.stdout.flush()
    sizes, served, asked = [], [], 0
    for _ in range(20):
        client, until = Client(url), time.monotonic() + seconds / 20
        while time.monotonic() < until:  # pace: so long each time
            client.call("GET", f"/v1/tasks/{ids[asked % _WATCHED]}")
            asked += 1
            time.sleep(0.01)  # pace: the load
        sizes.append(_memory_mb(worker.pid))
        served.append(_api_mb(api))
    print(f"  14 after {seconds:g} s: {_costs(engine, worker.pid)}; RSS {_quarters(sizes)} MiB")
    print(f"  14 API, a process, {asked} reads: RSS {_quarters(served)} MiB")
    client = Client(url)
    for task_id in ids:
        client.call("POST", f"/v1/tasks/kill?taskId={task_id}")
    wait_until(lambda: not engine.client.api.containers(all=True), 180, why="all are removed")


def _quarters(sizes: list[float]) -> str:
    """The mean of each quarter."""
    share = len(sizes) // 4
    means = [statistics.mean(sizes[start : start + share]) for start in range(0, len(sizes), share)]
    return " -> ".join(f"{mean:.1f}" for mean in means)


def _api_mb(api: Process) -> float:
    """Of the API's processes the largest."""
    found = Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split()
    return max(_memory_mb(int(pid)) for pid in found)


def _costs(engine: Engine, pid: int) -> str:
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return (
        f"{threads} threads, {descriptors} descriptors, {_to_engine(engine)} connections to the engine, "
        f"{_to_database()} to the database, {_memory_mb(pid):.0f} MiB"
    )


def _to_engine(engine: Engine) -> int:
    """Connections that dockerd has accepted, less this program's own. They count in the client's network."""
    engine.client.close()
    lines = Path("/proc/net/unix").read_text().splitlines()
    listening = "00010000"
    return sum(str(engine.socket) in line and line.split()[3] != listening for line in lines)


def _to_database() -> int:
    return int(_value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gantry-worker'"))


def _memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def _running() -> int:
    return int(_value("SELECT count(*) FROM workers_run WHERE state = 'RUNNING' AND started_at IS NOT NULL"))


def _succeeded() -> int:
    return int(_value("SELECT count(*) FROM workers_run WHERE kind = 'container' AND state = 'SUCCEEDED'"))


def _value(text: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetchone()[0]


def _show(found: dict[str, Any]) -> None:
    low, high = found["spread"]
    verdict = "reached" if found["ratio"] >= 0.95 else "MISSED"
    print(
        f"  5 containers, 8 at once [1/s]: ours {found['ours']:.1f}, raw SDK {found['peer']:.1f}, ratio "
        f"{found['ratio']:.2f} ({low:.2f} to {high:.2f}); mark 0.95 {verdict}"
    )
    sys.stdout.flush()
