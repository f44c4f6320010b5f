"""`make up` as a person uses it: real children, killed and restarted, over real HTTP."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.local.client import Client, Refused
from config.local.data import REPOSITORY, DataFolder
from config.local.programs import fetch
from config.local.temporary import free_ports, processes_of
from tests.integration.config.test_local_supervisor import alive
from tests.support import remains
from tests.support.session import SESSION
from tests.support.waiting import limit, wait_until

pytestmark = pytest.mark.daemons

TOKEN = "a-token-for-this-test-only-0123456789"


class Up:
    """`python -m config.local up` (or worker) on a data folder of its own; can be started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.flower_port = free_ports(2)
        self.client = Client(f"http://127.0.0.1:{self.port}", TOKEN)
        self.output = folder / "up.out"
        self.started: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GANTRY_", "DATABASE_URL", "REDIS_URL", "DJANGO_"))
        }
        return {
            **kept,
            "GANTRY_DATA_DIR": str(self.folder / "data"),
            "GANTRY_PORT": str(self.port),
            "GANTRY_FLOWER_PORT": str(self.flower_port),
            "GANTRY_BOOTSTRAP_TOKEN": TOKEN,
            "GANTRY_NODE_NAME": "first",
            "GANTRY_NODE_ATTRIBUTES": "rack_id=r1",
            **more,
        }

    def run(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "config.local", *(command or ("up",))],
                cwd=REPOSITORY,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        process = self.run("up", **more)
        wait_until(
            lambda: process.poll() is not None or self.said("Ready in"),
            120,
            why="it is ready",
            see=self.output.read_text,
        )
        assert process.poll() is None, self.output.read_text()
        return process

    def said(self, text: str) -> bool:
        return text in self.output.read_text()

    def forget_output(self) -> str:
        text = self.output.read_text()
        self.output.write_text("")
        return text

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        process.send_signal(signal.SIGINT)
        return process.wait(limit(120))

    def opens(self, token: str) -> int:
        """What the API answers somebody with this token; a busy machine may be late, but does answer."""
        headers = {"Authorization": f"Bearer {token}"}
        return fetch(f"{self.client.url}/v1/tasks?taskIds=1", headers, 60.0)[0]

    def ready(self) -> bool:
        return fetch(f"{self.client.url}/readyz")[0] == 200

    def submit(self, commands: str, **more: object) -> int:
        task = {"taskName": "probe", "commands": commands, "resources": {"cpu": 0.1, "mem": 256}, **more}
        return int(self.client.call("POST", "/v1/tasks", task)["data"]["taskId"])

    def task(self, task_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.client.call("GET", f"/v1/tasks/{task_id}")["data"]
        return found

    def wait(self, task_id: int, done: Callable[[int], bool] = lambda status: status > 1) -> dict[str, Any]:
        """Polls; an API that is being restarted is no reason to give up."""

        def found() -> dict[str, Any] | None:
            try:
                task = self.task(task_id)
            except Refused:
                task = {"taskStatus": -1}
            return task if done(task["taskStatus"]) else None

        return wait_until(found, 120, 0.1, f"task {task_id} comes so far", self.output.read_text)

    def children(self, mark: str) -> list[int]:
        """Ids of this service's processes whose arguments contain `mark`, the oldest first."""
        found = [line.split(maxsplit=1) for line in processes_of(self.folder)]
        return sorted(int(pid) for pid, arguments in found if mark in arguments)


@pytest.fixture
def up() -> Iterator[Up]:
    folder = remains.also(SESSION, Path(tempfile.mkdtemp(prefix="gu", dir="/tmp")))
    folder.chmod(0o711)
    service = Up(folder)
    yield service
    for process in service.started:
        if process.poll() is None:
            process.terminate()
            process.wait(limit(120))
    for server in (DataFolder(folder / "data").postgres(), DataFolder(folder / "data").redis()):
        server.stop("immediate")

    def nothing_left() -> bool:
        left = processes_of(folder)
        for line in left:  # what a test left on purpose: the launcher, a command
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        return not left

    wait_until(nothing_left, every_s=0.1, why="nothing is left", see=lambda: processes_of(folder))
    shutil.rmtree(folder)


@pytest.mark.timeout(900)
def test_a_service_is_stopped_and_started_again(up: Up, shared_folder: Path) -> None:
    """What is made up is printed once and kept nowhere; one supervisor a folder, and a second node beside it;
    a running command outlives Ctrl-C and is taken up again; a second Ctrl-C hurries."""
    first = up.start(GANTRY_BOOTSTRAP_TOKEN="")
    [token] = re.findall(r"gnt_[A-Za-z0-9_-]{20,}", up.forget_output())
    assert up.opens(token) == 200
    up.client = Client(up.client.url, token)

    _one_supervisor_and_a_second_node(up)
    second = _ctrl_c_and_the_next_start(up, first, shared_folder)

    made = up.run("manage", "create_token", "admin", "--json")
    assert made.wait(limit(120)) == 0
    [another] = re.findall(r"gnt_[A-Za-z0-9_-]{20,}", up.forget_output())
    assert up.opens(another) == 200
    assert up.opens(token) == 200
    _a_second_ctrl_c_hurries(up, second)
    kept = [
        path
        for path in (up.folder / "data").rglob("*")
        if path.is_file() and token.encode() in path.read_bytes()
    ]
    assert kept == []


def _one_supervisor_and_a_second_node(up: Up) -> None:
    refused = up.run("up", GANTRY_PORT=str(free_ports(1)[0]))
    assert refused.wait(limit(120)) == 1
    assert up.said(f"is in use by another `make up` (process {up.started[0].pid})")

    task_id = up.submit("echo here", constraints={"field": "rack_id", "values": ["r9"]})
    assert up.task(task_id)["taskStatus"] == -1
    node = up.run("worker", GANTRY_NODE_NAME="second", GANTRY_NODE_ATTRIBUTES="rack_id=r9")

    assert up.wait(task_id)["taskStatus"] == 2
    assert (up.folder / "data" / "nodes" / "second").is_dir()
    twice = up.run("worker", GANTRY_NODE_NAME="second")
    assert twice.wait(limit(120)) == 1
    assert up.said("node second runs already on this machine")
    assert up.stop(node) == 0
    wait_until(up.ready, why="it is ready")


def _ctrl_c_and_the_next_start(
    up: Up, first: subprocess.Popen[bytes], shared_folder: Path
) -> subprocess.Popen[bytes]:
    gate = shared_folder / "gate"
    gate.touch()
    task_id = up.submit(f"echo born; while test -e {gate}; do sleep 0.1; done; echo done")
    up.wait(task_id, lambda status: status == 1)
    wait_until(
        lambda: up.client.text(f"/v1/tasks/{task_id}/logs?stream=stdout") == "born\n", why="it says so"
    )
    running = up.children(f"test -e {gate}")
    assert running

    assert up.stop(first) == 0
    assert up.said("Stopped in")
    assert fetch(up.client.url)[0] == 0
    # Any: a shell that has forked and not yet executed its `sleep` looks like itself for a moment.
    assert any(alive(pid) for pid in running)
    up.forget_output()
    second = up.start(GANTRY_BOOTSTRAP_TOKEN="")
    assert "gnt_" not in up.forget_output(), "what was made up is printed once"
    gate.unlink()

    assert up.wait(task_id)["taskStatus"] == 2
    assert up.client.text(f"/v1/tasks/{task_id}/logs?stream=stdout") == "born\ndone\n"
    assert up.task(task_id)["message"] == "Command exited with status 0"
    return second


@pytest.mark.timeout(900)
def test_a_service_is_interrupted_and_killed(up: Up) -> None:
    """An early Ctrl-C stops the start; a killed supervisor leaves servers that the next one takes; everything
    that is killed comes back, and nothing of it is left at the end."""
    early = up.run()
    wait_until(lambda: up.said("postgres"), 120, why="it starts Postgres")
    assert up.stop(early) == 0
    assert up.said("Stopped before it was up.")
    up.forget_output()

    first = up.start()
    first.kill()
    first.wait()
    wait_until(
        lambda: not up.children("granian") + up.children("manage.py") + up.children("flower"),
        why="all children are gone",
    )
    assert DataFolder(up.folder / "data").postgres().running
    up.forget_output()

    second = up.start()

    assert up.forget_output().count("ran already, used as it is") == 2
    assert up.wait(up.submit("true"))["taskStatus"] == 2
    _everything_that_is_killed_comes_back(up)
    assert up.stop(second) == 0
    _nothing_is_left(up)


def _nothing_is_left(up: Up) -> None:
    assert up.children("granian") + up.children("manage.py") + up.children("flower") == []
    data = DataFolder(up.folder / "data")
    assert data.postgres().pids == data.redis().pids == []


def _everything_that_is_killed_comes_back(up: Up) -> None:
    data = DataFolder(up.folder / "data")
    for mark, name in (("granian", "api"), ("manage.py node", "worker"), ("flower", "flower")):
        os.kill(up.children(mark)[0], signal.SIGKILL)
        wait_until(lambda: up.said(f"{name:<10} was killed by SIGKILL"), why=f"{name} is missed")  # noqa: B023
    for server in (data.postgres(), data.redis()):
        server.kill()
        wait_until(
            lambda: up.said(f"{server.title} was gone, started again"),  # noqa: B023
            why=f"{server.title} is missed",
        )
    wait_until(up.ready, 120, why="it is ready again")

    assert up.wait(up.submit("true"))["taskStatus"] == 2
    wait_until(lambda: fetch(f"http://127.0.0.1:{up.flower_port}/")[0] == 401, 120, why="Flower is back")


def _a_second_ctrl_c_hurries(up: Up, process: subprocess.Popen[bytes]) -> None:
    [worker] = up.children("manage.py node")
    os.kill(worker, signal.SIGSTOP)  # one that cannot react: 15 s of grace without hurry
    process.send_signal(signal.SIGINT)
    wait_until(lambda: up.said("Stopping"), why="it stops")
    process.send_signal(signal.SIGINT)

    assert process.wait(limit(120)) == 0
    assert re.findall(r"did not end in \d+ s, killed", up.forget_output())


def test_the_demo_shows_what_it_promises_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "config.local", "demo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for promised in (
        "FINISHED",
        "step 5 of 5",
        "FAILED: Command exited with status 3",
        "KILLED",
        "rack_id in [r9]",
    ):
        assert promised in done.stdout
    [folder] = set(re.findall(r"/tmp/gantry-demo-\w+", done.stdout))
    assert not Path(folder).exists()
    assert processes_of(Path(folder)) == []
