"""POST /v1/tasks/kill and /v1/tasks/reconcile: waiting, running, ended, unknown and foreign tasks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.tasks.conftest import UNKNOWN, Api, Stage, error
from workers.models import Run
from workers.vocabulary.states import Reason, State


def killed(answer: Any) -> dict[str, Any]:
    """The data of an answer to a kill, which has exactly the documented fields."""
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert set(body) == {"status", "message", "data"}
    assert (body["status"], body["message"]) == (0, "OK")
    data: dict[str, Any] = body["data"]
    assert set(data) == {"submitKill", "submitTask", "resultMessage", "currentStatus"}
    assert data.pop("submitTask") == data["submitKill"]
    return data


WAITING = {"submitKill": True, "resultMessage": "task is killed", "currentStatus": 6}


def test_a_waiting_task_is_killed_at_once(api: Api) -> None:
    task_id = api.submit()
    assert killed(api.post(f"/v1/tasks/kill?taskId={task_id}")) == WAITING
    found = api.task(task_id)
    assert (found["taskStatus"], found["message"]) == (6, "task is killed")
    assert "finishAt" in found
    again = {"submitKill": False, "resultMessage": "task is killed", "currentStatus": 6}
    assert killed(api.post(f"/v1/tasks/kill?taskId={task_id}")) == again


@pytest.mark.parametrize("started", [False, True])
def test_a_running_task_is_asked_to_stop(api: Api, stage: Stage, started: bool) -> None:
    task_id = api.submit(retry=3)
    run = stage.start(task_id) if started else stage.claim(task_id)
    asked = {
        "submitKill": True,
        "resultMessage": "juice accept kill task command",
        "currentStatus": 1 if started else 0,
    }
    assert killed(api.post(f"/v1/tasks/kill?taskId={task_id}")) == asked
    first = Run.objects.get(pk=task_id).cancel_requested_at
    assert first is not None
    assert api.task(task_id)["message"] == "Task is being killed"
    assert killed(api.post(f"/v1/tasks/kill?taskId={task_id}")) == asked
    assert Run.objects.get(pk=task_id).cancel_requested_at == first
    stage.finish(
        run.__class__(**{**run.__dict__, "retries_left": 0}),
        State.CANCELLED,
        message="Command was killed by request",
        exit_code=143,
    )
    assert api.task(task_id)["taskStatus"] == 6


@pytest.mark.parametrize(
    ("state", "reason", "code", "message", "status"),
    [
        (State.SUCCEEDED, Reason.NONE, 0, "Command exited with status 0", 2),
        (State.FAILED, Reason.EXIT_CODE, 3, "Command exited with status 3", 3),
        (State.FAILED, Reason.LOST, None, "Command is gone", 4),
    ],
)
def test_an_ended_task_stays_as_it_is(
    api: Api, stage: Stage, state: State, reason: Reason, code: int | None, message: str, status: int
) -> None:
    task_id = api.submit()
    stage.end(task_id, state, reason, message, code)
    before = api.task(task_id)
    assert killed(api.post(f"/v1/tasks/kill?taskId={task_id}")) == {
        "submitKill": False,
        "resultMessage": message,
        "currentStatus": status,
    }
    assert api.task(task_id) == before


def test_unknown_and_foreign_tasks_are_no_such_record(api: Api, stranger: Api) -> None:
    foreign = stranger.submit()
    numbers = {error(api.post(f"/v1/tasks/kill?taskId={task_id}"), 400) for task_id in (UNKNOWN, foreign)}
    assert {number for number, _ in numbers} == {-2127560608}
    assert all("no such record" in message for _, message in numbers)
    assert Run.objects.get(pk=foreign).state == State.PENDING


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", -2127552257),
        ("?taskId=", -2127552257),
        ("?taskId=abc", -2127552019),
        ("?taskId=1,2", -2127552019),
        ("?taskId=9223372036854775808", -2127552019),
    ],
)
def test_kills_that_are_refused(api: Api, query: str, number: int) -> None:
    found, message = error(api.post(f"/v1/tasks/kill{query}"), 400)
    assert found == number
    assert "taskId" in message


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("taskId={}", "application/x-www-form-urlencoded"),
        ("taskId={}", "application/x-www-form-urlencoded; charset=UTF-8"),
        ('{{"taskId":{}}}', "application/json"),
        ('{{"taskId":"{}"}}', "application/json;charset=utf-8"),
        ('{{"taskId":{}.0}}', "text/plain"),
        ('{{"taskId":{}}}', ""),
        (
            '--x\r\nContent-Disposition: form-data; name="taskId"\r\n\r\n{}\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_the_id_may_stand_in_the_body(api: Api, body: str, content_type: str) -> None:
    task_id = api.submit()
    assert killed(api.send("POST", "/v1/tasks/kill", body.format(task_id), content_type)) == WAITING


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/json; charset=utf-8", "text/plain"]
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_post_without_a_body(api: Api, content_type: str, slash: str) -> None:
    task_id = api.submit()
    headers = {"Content-Type": content_type} if content_type else {}
    assert killed(api.send("POST", f"/v1/tasks/kill{slash}?taskId={task_id}", **headers)) == WAITING


def test_a_task_is_not_killed_by_reading(api: Api) -> None:
    task_id = api.submit()
    assert error(api.get(f"/v1/tasks/kill?taskId={task_id}"), 405)[0] == -2127560592
    assert Run.objects.get(pk=task_id).state == State.PENDING


# --- Reconcile ---------------------------------------------------------------------------------------


def reconciled(answer: Any) -> dict[str, Any]:
    """The data of an answer to a reconcile, which has exactly the documented fields."""
    assert answer.status_code == 200, answer.content
    data: dict[str, Any] = answer.json()["data"]
    assert set(data) == {"request", "reconcile", "reconciles"}
    assert all(set(item) == {"taskId", "reconciled", "message"} for item in data["reconciles"])
    return data


def test_waiting_ended_unknown_and_foreign_tasks(api: Api, stranger: Api, stage: Stage) -> None:
    waiting, ended, foreign = api.submit(), api.submit(), stranger.submit()
    stage.end(ended, State.SUCCEEDED, message="Command exited with status 0", exit_code=0)
    asked = f"{foreign},%20{ended},{waiting},{UNKNOWN},{ended}"
    assert reconciled(api.post(f"/v1/tasks/reconcile?taskIds={asked}")) == {
        "request": 4,
        "reconcile": 2,
        "reconciles": [
            {"taskId": foreign, "reconciled": False, "message": "invalid taskId"},
            {"taskId": ended, "reconciled": True, "message": "it has ended: FINISHED"},
            {"taskId": waiting, "reconciled": True, "message": "it is waiting"},
            {"taskId": UNKNOWN, "reconciled": False, "message": "invalid taskId"},
        ],
    }


def test_ids_may_stand_in_the_body_of_a_reconcile(api: Api) -> None:
    first, second = api.submit(), api.submit()
    for body, content_type in (
        (f"taskIds={first},{second}", "application/x-www-form-urlencoded"),
        (f'{{"taskIds":"{first}, {second}"}}', "application/json"),
        (f'{{"taskIds":[{first},{second}]}}', "text/plain"),
    ):
        data = reconciled(api.send("POST", "/v1/tasks/reconcile", body, content_type))
        assert [item["taskId"] for item in data["reconciles"]] == [first, second]


@pytest.mark.parametrize(
    ("query", "number"),
    [("", -2127552257), ("?taskIds=%20,", -2127552019), ("?taskIds=x", -2127552019)],
)
def test_reconciles_that_are_refused(api: Api, query: str, number: int) -> None:
    found, message = error(api.post(f"/v1/tasks/reconcile{query}"), 400)
    assert found == number
    assert "taskIds" in message
