"""GET /v1/tasks, /v1/tasks/{id} and /explain: the documented task object, batches, and what they cost."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.contracts.tasks.conftest import UNKNOWN, Api, Stage, error
from workers import services
from workers.models import Run
from workers.scheduling import claiming, explain
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State

DATE = re.compile(
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [1-9]\d?, \d{4} ([1-9]|1[0-2]):\d\d:\d\d [AP]M"
)


def test_a_waiting_task_has_exactly_these_fields(api: Api, stage: Stage) -> None:
    task_id = api.submit(taskName="test-commands", commands="/home/app/entrypoint.sh", retry=2)
    found = api.task(task_id)
    assert DATE.fullmatch(found.pop("submitAt"))
    assert found == {
        "taskId": task_id,
        "taskName": "test-commands",
        "tenantId": "10002",
        "commands": "/home/app/entrypoint.sh",
        "taskStatus": -1,
        "message": "Task is waiting: it is about to start",
        "retry": 2,
    }


def test_a_finished_task_has_exactly_these_fields(api: Api, stage: Stage) -> None:
    task_id = api.submit(callbackUrl="http://localhost:9999/v1/callback")
    stage.end(task_id, State.SUCCEEDED, message="Command exited with status 0", exit_code=0)
    found = api.task(task_id)
    assert DATE.fullmatch(found.pop("submitAt"))
    assert DATE.fullmatch(found.pop("finishAt"))
    assert found == {
        "taskId": task_id,
        "taskName": "demo",
        "tenantId": "10002",
        "commands": "true",
        "taskStatus": 2,
        "message": "Command exited with status 0",
        "callbackUrl": "http://localhost:9999/v1/callback",
        "agentHost": "agent-7",
        "retry": 0,
    }


def test_a_container_task_shows_its_image_and_says_what_it_waits_for(api: Api, stage: Stage) -> None:
    answer = api.post("/v1/tasks", {"taskName": "c", "container": {"docker": {"image": "busybox:1"}}})
    explain.node_views(0.0)
    found = api.task(answer.json()["data"]["taskId"])
    assert found["dockerImage"] == "busybox:1"
    assert "commands" not in found
    assert (found["taskStatus"], found["message"]) == (
        -1,
        "Task is waiting: no node offers the container runtime",
    )


def test_the_statuses_of_a_life(api: Api, stage: Stage) -> None:
    task_id = api.submit(retry=1)
    assert api.task(task_id)["taskStatus"] == -1
    run = stage.claim(task_id)
    assert (api.task(task_id)["taskStatus"], api.task(task_id)["agentHost"]) == (0, "agent-7")
    assert api.task(task_id)["message"] == "Task is being prepared on node node-a"
    stage.finish(run, State.FAILED, Reason.EXIT_CODE, "Command exited with status 3", 3)
    found = api.task(task_id)
    assert (found["taskStatus"], found["retry"]) == (-1, 0)
    assert found["message"].startswith("Task is waiting: its next attempt starts after ")
    assert found["message"].endswith(" UTC (attempt 1: Command exited with status 3)")
    assert "finishAt" not in found
    run = stage.start(task_id)
    assert (api.task(task_id)["taskStatus"], api.task(task_id)["message"]) == (1, "Command is running")
    stage.finish(run, State.FAILED, Reason.EXIT_CODE, "Command exited with status 4", 4)
    found = api.task(task_id)
    assert (found["taskStatus"], found["message"]) == (3, "Command exited with status 4")


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        (State.FAILED, Reason.TIMEOUT, 3),
        (State.FAILED, Reason.OOM, 3),
        (State.FAILED, Reason.LOST, 4),
        (State.FAILED, Reason.INPUT, 5),
        (State.FAILED, Reason.UNREACHABLE, 7),
        (State.FAILED, Reason.DROPPED, 8),
        (State.FAILED, Reason.NODE_GONE, 9),
        (State.CANCELLED, Reason.OPERATOR, 10),
        (State.CANCELLED, Reason.NONE, 6),
    ],
)
def test_ends(api: Api, stage: Stage, state: State, reason: Reason, status: int) -> None:
    task_id = api.submit()
    stage.end(task_id, state, reason)
    assert api.task(task_id)["taskStatus"] == status


def test_a_silent_node_does_not_end_the_task_and_is_told(api: Api, stage: Stage) -> None:
    task_id = api.submit()
    stage.start(task_id)
    stage.silence(100)
    found = api.task(task_id)
    assert found["taskStatus"] == 1
    assert re.fullmatch(
        r"Node node-a has been silent for 1\d\d s; when last heard of, the task was running there",
        found["message"],
    )


def test_a_task_that_fits_nowhere_says_why(api: Api, stage: Stage) -> None:
    explain.node_views(0.0)
    here = api.submit(constraints={"field": "rack_id", "values": ["r9"]})
    large = api.submit(resources={"cpu": 16, "mem": 16384})
    stage.node.cpu_m_total = stage.node.cpu_m_configured = 4000
    stage.node.save()
    explain.node_views(0.0)
    messages = [task["message"] for task in api.tasks(here, large)]
    assert messages == [
        "Task is waiting: no node has rack_id in [r9]",
        "Task is waiting: it needs 16 CPU, the largest node has 4",
    ]


# --- Batches -----------------------------------------------------------------------------------------


def test_ids_come_as_asked_once_each_and_unknown_and_foreign_ones_are_left_out(
    api: Api, stranger: Api
) -> None:
    first, second, third = api.submit(), api.submit(), api.submit()
    foreign = stranger.submit()
    asked = f" {third} , {first},{UNKNOWN},{foreign} ,{third},{second}, 0,-1,{2**63 - 1},{-(2**63)}"
    answer = api.get(f"/v1/tasks?taskIds={quote(asked)}")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert {key: body[key] for key in ("status", "message")} == {"status": 0, "message": "OK"}
    assert [task["taskId"] for task in body["data"]] == [third, first, second]
    assert [task["taskId"] for task in api.tasks(f"{first}&taskIds={second}")] == [first, second]


def test_nothing_known_is_an_empty_list(api: Api) -> None:
    assert api.get(f"/v1/tasks?taskIds={UNKNOWN}").json() == {"status": 0, "message": "OK", "data": []}


def test_a_run_of_another_family_is_no_task(api: Api) -> None:
    spec = ProcessSpec(argv=["true"])
    other = services.submit(services.Submission(api.tenant.pk, "other", spec, "not a task"))
    assert api.tasks(other) == []
    error(api.get(f"/v1/tasks/{other}"), 404)
    error(api.get(f"/v1/tasks/{other}/explain"), 404)
    error(api.get(f"/v1/tasks/{other}/logs"), 404)
    error(api.post(f"/v1/tasks/kill?taskId={other}"), 400)
    assert api.post(f"/v1/tasks/reconcile?taskIds={other}").json()["data"]["reconcile"] == 0
    assert Run.objects.get(pk=other).state == State.PENDING


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", -2127552257),
        ("?taskIds=", -2127552257),
        ("?taskIds=%20", -2127552257),
        ("?taskids=1", -2127552257),
        ("?taskIds=a", -2127552019),
        ("?taskIds=1,b", -2127552019),
        ("?taskIds=1.5", -2127552019),
        ("?taskIds=1;2", -2127552019),
        ("?taskIds=9223372036854775808", -2127552019),
        (f"?taskIds={','.join(map(str, range(1001)))}", -2127552256),
    ],
)
def test_questions_that_are_refused(api: Api, query: str, number: int) -> None:
    found, message = error(api.get(f"/v1/tasks{query}"), 400)
    assert found == number
    assert "taskIds" in message


def statements(api: Api, path: str) -> int:
    """How many statements a request costs once its token is known."""
    api.tasks(UNKNOWN)
    with CaptureQueriesContext(connection) as captured:
        assert api.get(path).status_code == 200
    return len(captured)


def test_a_hundred_tasks_are_one_query(api: Api, stage: Stage, remembered: None) -> None:
    ids = [api.submit() for _ in range(100)]
    for task_id in ids[:50]:
        stage.start(task_id)
    for task_id in ids[50:]:
        stage.end(task_id, State.SUCCEEDED, message="Command exited with status 0", exit_code=0)
    path = f"/v1/tasks?taskIds={','.join(map(str, ids))}"
    assert statements(api, path) == 1
    assert len(api.get(path).json()["data"]) == 100
    assert statements(api, f"/v1/tasks/{ids[0]}") == 1


def test_a_hundred_waiting_tasks_of_a_hundred_shapes_are_two_queries_then_one(
    api: Api, stage: Stage, remembered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [api.submit(resources={"cpu": 1 + number / 10}) for number in range(100)]
    path = f"/v1/tasks?taskIds={','.join(map(str, ids))}"
    # Nodes are read at most once a second, whoever asks: here that second is a long one.
    nodes = explain.node_views(0.0)
    monkeypatch.setattr(explain, "_cache", (time.monotonic() + 600, nodes))
    claiming.binding_quotas([api.tenant.pk])  # remembered for seconds, likewise
    assert statements(api, path) == 2
    assert statements(api, path) <= 2


# --- One task ----------------------------------------------------------------------------------------


def test_one_task_is_the_same_object(api: Api) -> None:
    task_id = api.submit()
    for path in (f"/v1/tasks/{task_id}", f"/v1/tasks/{task_id}/"):
        answer = api.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"status": 0, "message": "OK", "data": api.task(task_id)}


@pytest.mark.parametrize("path", ["", "/explain", "/logs"])
def test_unknown_and_foreign_tasks_are_the_same_404(api: Api, stranger: Api, path: str) -> None:
    foreign = stranger.submit()
    unknown, of_unknown = error(api.get(f"/v1/tasks/{UNKNOWN}{path}"), 404)
    other, of_foreign = error(api.get(f"/v1/tasks/{foreign}{path}"), 404)
    assert unknown == other == -2127560608
    assert of_unknown.replace(str(UNKNOWN), "N") == of_foreign.replace(str(foreign), "N")


def test_explain_says_what_is_missing_and_what_to_do(api: Api, stage: Stage) -> None:
    task_id = api.submit(constraints={"field": "rack_id", "values": ["r9"]})
    body: dict[str, Any] = api.get(f"/v1/tasks/{task_id}/explain").json()
    assert (body["status"], body["message"]) == (0, "OK")
    told = body["data"]
    assert set(told) == {"state", "since", "reasons", "position", "estimate"}
    assert told["state"] == "PENDING"
    assert set(told["reasons"][0]) == {"code", "message", "need", "free", "quota", "blocked_by", "remedy"}
    assert told["reasons"][0]["message"] == "no node has rack_id in [r9]"
    assert told["reasons"][0]["remedy"]
