"""What the benchmarks run on: our API and node, the peer's API and worker, the load generator."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.cluster import ROOT, Process, free_port
from tests.support.waiting import wait_until

TOKEN = "gnt_benchbenchbenchbenchbenchbenchbenchbench"
#: The environment as it is.
_SAME: Mapping[str, str] = {}
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


class Rig:
    """Starts processes in a throw-away folder; ``stop`` ends them all."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gb-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.processes: list[Process] = []

    def spawn(self, name: str, command: list[str], **env: str) -> Process:
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def api(
        self, name: str, settings: str, *, workers: int = 2, threads: int = 8, env: Mapping[str, str] = _SAME
    ) -> str:
        """A granian server with these settings; returns its URL."""
        port = free_port()
        granian = str(Path(sys.executable).parent / "granian")
        options = ["--interface", "asginl", "--host", "127.0.0.1", "--port", str(port), "--no-log"]
        sizes = ["--workers", str(workers), "--backpressure", "4096"]
        command = [granian, "config.asgi:application", *options, *sizes]
        process = self.spawn(
            name, command, DJANGO_SETTINGS_MODULE=settings, GANTRY_API_THREADS=str(threads), **env
        )
        wait_until(lambda: answers(port) or not process.alive, 30, why=f"{name} answers")
        return f"http://127.0.0.1:{port}"

    def node(self, slots: int = 64, *, runtimes: str = "process", **env: str) -> Process:
        """Our worker: room for ``slots`` runs of 0.1 CPU, unless ``env`` says otherwise.

        It has these runtimes and no other: a Docker Engine that happens to be on the machine is not its own.
        """
        process = self.spawn(
            "node",
            [sys.executable, "manage.py", "node"],
            **{
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "GANTRY_NODE_NAME": "bench",
                "GANTRY_RUNTIMES": runtimes,
                "GANTRY_NODE_DIR": str(self.folder / env.get("GANTRY_NODE_NAME", "node")),
                "GANTRY_NODE_CPUS": str(slots / 10),
                "GANTRY_NODE_MEM_MB": str(slots * 512),
                "GANTRY_NODE_SLOTS": str(slots),
                **env,
            },
        )
        wait_until(lambda: "broker.back" in process.text() or not process.alive, 30, why="the node is up")
        return process

    def peer_worker(self, concurrency: int = 64) -> Process:
        """The peer's Celery worker with a thread pool of the same size."""
        process = self.spawn(
            "peer-worker",
            [
                *(
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "tests.bench.peer_celery",
                    "worker",
                    "--pool=threads",
                ),
                *(f"--concurrency={concurrency}", "--queues=peer", "--without-gossip", "--without-mingle"),
                *("--loglevel=INFO",),
            ],
            DJANGO_SETTINGS_MODULE="tests.bench.peer_settings",
            GANTRY_ROLE="worker",
        )
        wait_until(lambda: "ready." in process.text() or not process.alive, 30, why="the peer's worker is up")
        return process

    def named(self, name: str) -> Process:
        """The last process of that name."""
        return next(process for process in reversed(self.processes) if process.name == name)

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.alive:
                process.popen.terminate()
        for process in self.processes:
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                process.popen.kill()
        subprocess.run(["pkill", "-f", str(self.folder)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    except OSError:
        return False
    return True


def wrk(url: str, seconds: float, connections: int = 8, body: object = None) -> float:
    """Requests per second over ``connections`` kept-alive connections; fails when one was not 2xx."""
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in HEADERS.items()]
    if body is not None:
        lines += ['wrk.method = "POST"', f"wrk.body = [==[{json.dumps(body)}]==]"]
    script = Path(tempfile.mkdtemp()) / "request.lua"
    script.write_text("\n".join(lines))
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url],
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(script.parent)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(f"{url} answered errors: {done.stdout}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found.group(1))


class Client:
    """One kept-alive connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=30)
        self._connection.connect()

    def call(self, method: str, path: str, body: object = None) -> Any:
        self._connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return json.loads(text)


def interleave(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """Run both in turn; medians, spreads and the median of the ratios pair by pair."""
    mine, peer = [], []
    for _ in range(rounds):
        mine.append(ours())
        peer.append(theirs())
        time.sleep(0.5)  # pace: between two measurements
    ratios = sorted(a / b for a, b in zip(mine, peer, strict=True))
    return {
        "ours": statistics.median(mine),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "spread": (ratios[0], ratios[-1]),
        "ours_all": mine,
        "peer_all": peer,
    }
