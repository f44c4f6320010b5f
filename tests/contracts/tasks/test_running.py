"""Tasks that really run, on a real worker: exit codes, logs, kill, reconcile, retry, uris."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.tasks.conftest import Api, member
from tests.support.cluster import PATIENT, Cluster
from tests.support.waiting import wait_until
from workers.tenants import tenancy


@pytest.fixture
def working(cluster: Cluster) -> Iterator[Api]:
    """A member of a tenant that a running node works for. The node's log is shown when a test fails."""
    api = member("10002", "ann")
    api.tenant.trusted_with_worker_account = True
    api.tenant.save()
    cluster.node("n1", attributes="rack_id=r1", settings=PATIENT, GANTRY_URI_ALLOW_NETWORKS="127.0.0.0/8")
    yield api
    print(cluster.logs())


def ended(api: Api, task_id: int, timeout_s: float = 90.0) -> dict[str, Any]:
    """The task object once its status is a final one."""
    return dict(
        wait_until(
            lambda: (found := api.task(task_id))["taskStatus"] > 1 and found,
            timeout_s,
            why=f"task {task_id} ends",
        )
    )


def log(api: Api, task_id: int, query: str = "") -> bytes:
    answer = api.get(f"/v1/tasks/{task_id}/logs{query}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return b"".join(answer.streaming_content)


def test_commands_run_and_what_they_wrote_is_there(working: Api) -> None:
    good = working.submit(
        commands='echo "$environment"; echo problem >&2', env={"name": "environment", "value": "dev"}
    )
    bad = working.submit(commands="exit 3")
    found = ended(working, good)
    assert (found["taskStatus"], found["message"]) == (2, "Command exited with status 0")
    assert found["agentHost"]
    assert found["finishAt"]
    assert log(working, good, "?stream=stdout") == b"dev\n"
    assert log(working, good, "?stream=stderr") == b"problem\n"
    assert log(working, good, "?follow=1") == b"dev\nproblem\n"
    found = ended(working, bad)
    assert (found["taskStatus"], found["message"]) == (3, "Command exited with status 3")


def test_a_running_task_is_followed_reconciled_and_killed(working: Api) -> None:
    task_id = working.submit(commands="trap '' TERM; echo ready; sleep 600 & wait; sleep 600")
    wait_until(lambda: working.task(task_id)["taskStatus"] == 1, why="it runs")
    wait_until(lambda: log(working, task_id) == b"ready\n", why="its output is there while it runs")

    def compared() -> dict[str, Any] | None:
        """The answer, once the node has given its part within the time that a client is kept waiting."""
        found = working.post(f"/v1/tasks/reconcile?taskIds={task_id},1").json()["data"]
        return dict(found) if found["reconcile"] else None

    told = wait_until(compared, why="the node says what it knows")
    assert (told["request"], told["reconcile"]) == (2, 1)
    assert told["reconciles"][0]["reconciled"] is True
    answer = working.post(f"/v1/tasks/kill?taskId={task_id}").json()["data"]
    assert answer == {
        "submitKill": True,
        "submitTask": True,
        "resultMessage": "juice accept kill task command",
        "currentStatus": 1,
    }
    found = ended(working, task_id)
    assert (found["taskStatus"], found["message"]) == (6, "task is killed")


def test_a_failing_task_is_tried_again(working: Api) -> None:
    task_id = working.submit(commands="echo try; exit 4", retry=2.0)
    found = ended(working, task_id)
    assert (found["taskStatus"], found["message"], found["retry"]) == (3, "Command exited with status 4", 0)
    detail = working.get(f"/api/v1/runs/{task_id}").json()
    assert [attempt["exit_code"] for attempt in detail["attempts"]] == [4, 4, 4]
    assert detail["owner"]["id"] == str(task_id)
    assert detail["owner"]["url"].endswith(f"/v1/tasks/{task_id}")


def test_constraints_are_honoured_and_a_hopeless_one_is_told(working: Api) -> None:
    here = working.submit(constraints={"field": "RACK_ID", "values": ["r0", "r1"]})
    nowhere = working.submit(constraints={"field": "rack_id", "values": ["r9"]})
    assert ended(working, here)["taskStatus"] == 2
    found = working.task(nowhere)
    assert (found["taskStatus"], found["message"]) == (-1, "Task is waiting: no node has rack_id in [r9]")
    told = working.get(f"/v1/tasks/{nowhere}/explain").json()["data"]
    assert told["reasons"][0]["code"] == "constraint"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """The URL of an HTTP server with one file, hello.txt."""
    (tmp_path / "hello.txt").write_text("hello from afar\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_uris_are_in_the_working_directory_first(working: Api, files: str) -> None:
    good = working.submit(commands="cat hello.txt", uris=[f"{files}/hello.txt"])
    bad = working.submit(commands="true", uris=[f"{files}/nothing.txt"])
    assert (ended(working, good)["message"], log(working, good)) == (
        "Command exited with status 0",
        b"hello from afar\n",
    )
    found = ended(working, bad)
    assert found["taskStatus"] == 5
    assert "nothing.txt" in found["message"]


def test_a_policy_that_closes_commands_refuses_them(working: Api) -> None:
    tenancy.update_tenant("10002", opened={"commands": False})
    answer = working.post("/v1/tasks", {"taskName": "a", "commands": "true"})
    assert (answer.status_code, answer.json()["status"]) == (400, -2127552256)
