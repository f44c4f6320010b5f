"""taskStatus and message of a task, pure: every state and reason of the engine, the documented names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tasks_api import status
from tasks_api.status import Facts, TaskStatus
from workers.vocabulary.states import Reason, State

SUBMITTED = datetime(2016, 12, 8, 15, 58, 29, tzinfo=UTC)
STARTED = datetime(2016, 12, 8, 15, 58, 30, tzinfo=UTC)
ENDED = datetime(2016, 12, 8, 16, 3, 8, tzinfo=UTC)


def facts(**changes: Any) -> Facts:
    """A waiting command task, changed as told."""
    waiting = Facts(
        id=7,
        name="test-commands",
        commands="/home/app/entrypoint.sh",
        image=None,
        state=State.PENDING,
        reason="",
        message="",
        exit_code=None,
        attempt=0,
        retries_left=0,
        started_at=None,
        created_at=SUBMITTED,
        finished_at=None,
        not_before=None,
        cancel_requested_at=None,
        by_operator=False,
        callback_url="",
        shape_id=3,
        node=None,
        host=None,
        silent_s=None,
    )
    return waiting._replace(**changes)


def running(**changes: Any) -> Facts:
    placed = {"state": State.RUNNING, "attempt": 1, "started_at": STARTED, "node": "n1", "silent_s": 1.0}
    return facts(**{**placed, **changes})


def ended(state: State, reason: str = "", **changes: Any) -> Facts:
    return running(**{"state": state, "reason": reason, "finished_at": ENDED, **changes})


# --- Status ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts(), TaskStatus.NOT_START),
        (facts(attempt=1, reason=Reason.EXIT_CODE, not_before=ENDED, retries_left=1), TaskStatus.NOT_START),
        (facts(attempt=1, reason=Reason.LOST, retries_left=0), TaskStatus.NOT_START),
        (running(started_at=None), TaskStatus.STAGING),
        (running(), TaskStatus.RUNNING),
        (running(silent_s=599.0), TaskStatus.RUNNING),
        (running(cancel_requested_at=ENDED), TaskStatus.RUNNING),
        (ended(State.SUCCEEDED, exit_code=0), TaskStatus.FINISHED),
        (ended(State.FAILED), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.EXIT_CODE, exit_code=3), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.TIMEOUT, exit_code=143), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.OOM, exit_code=137), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.DISK), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.OUTPUT), TaskStatus.FAILED),
        (ended(State.FAILED, Reason.LOST), TaskStatus.LOST),
        (ended(State.FAILED, Reason.IMAGE, started_at=None), TaskStatus.ERROR),
        (ended(State.FAILED, Reason.CREATE, started_at=None), TaskStatus.ERROR),
        (ended(State.FAILED, Reason.INPUT, started_at=None), TaskStatus.ERROR),
        (ended(State.FAILED, Reason.REJECTED, started_at=None), TaskStatus.ERROR),
        (ended(State.FAILED, Reason.RUNTIME, started_at=None), TaskStatus.ERROR),
        (ended(State.FAILED, Reason.RUNTIME), TaskStatus.FAILED),
        (ended(State.CANCELLED), TaskStatus.KILLED),
        (ended(State.CANCELLED, Reason.UNREACHABLE), TaskStatus.KILLED),
        (ended(State.FAILED, Reason.UNREACHABLE), TaskStatus.UNREACHABLE),
        (ended(State.FAILED, Reason.DROPPED, started_at=None), TaskStatus.DROPPED),
        (ended(State.FAILED, Reason.NODE_GONE), TaskStatus.GONE),
        (ended(State.FAILED, Reason.OPERATOR), TaskStatus.GONE_BY_OPERATOR),
        (ended(State.CANCELLED, Reason.OPERATOR), TaskStatus.GONE_BY_OPERATOR),
        (ended(State.CANCELLED, by_operator=True), TaskStatus.GONE_BY_OPERATOR),
        (ended(State.FAILED, Reason.EXPIRED, started_at=None), TaskStatus.EXPIRED),
        (ended(State.FAILED, "of_a_newer_version"), TaskStatus.FAILED),
    ],
)
def test_task_status(given_facts: Facts, expected: TaskStatus) -> None:
    assert status.status(given_facts) is expected


def test_every_reason_of_the_engine_has_a_status_and_every_final_status_a_cause() -> None:
    failed = {reason: status.status(ended(State.FAILED, reason)) for reason in Reason}
    assert set(status.FAILED_STATUS) == set(Reason) - {Reason.RUNTIME}
    reached = {*failed.values(), TaskStatus.FINISHED, TaskStatus.KILLED}
    assert reached == {found for found in TaskStatus if found > 1} - {TaskStatus.UNKNOWN}


def test_final_statuses_are_those_above_1() -> None:
    for state in State:
        for reason in Reason:
            found = status.status(ended(state, reason))
            assert (found > 1) == (state in (State.SUCCEEDED, State.FAILED, State.CANCELLED))


def test_the_documented_names() -> None:
    documented = """NOT_START(-1), STAGING(0), RUNNING(1), FINISHED(2), FAILED(3), LOST(4), ERROR(5),
        KILLED(6), UNREACHABLE(7), DROPPED(8), GONE(9), GONE_BY_OPERATOR(10), UNKNOWN(11), EXPIRED(12)"""
    table = {item.strip().split("(")[0]: int(item.split("(")[1][:-1]) for item in documented.split(",")}
    assert {found.name: found.value for found in TaskStatus} == table
    assert {name: status.name(number) for name, number in table.items()} == {name: name for name in table}


# --- Messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts(shape_id=4), "Task is waiting: no node has rack_id in [r9]"),
        (facts(), "Task is waiting: it is about to start"),
        (
            facts(attempt=1, message="Command exited with status 3", not_before=ENDED),
            (
                "Task is waiting: its next attempt starts after 16:03:08 UTC "
                "(attempt 1: Command exited with status 3)"
            ),
        ),
        (
            facts(attempt=2, message="Command exited with status 3", shape_id=4),
            "Task is waiting: no node has rack_id in [r9] (attempt 2: Command exited with status 3)",
        ),
        (running(started_at=None), "Task is being prepared on node n1"),
        (running(), "Task is running on node n1"),
        (running(message="Command is running"), "Command is running"),
        (running(cancel_requested_at=ENDED), "Task is being killed"),
        (
            running(silent_s=61.4, message="Command is running"),
            "Node n1 has been silent for 61 s; when last heard of, the task was running there",
        ),
        (
            ended(State.SUCCEEDED, exit_code=0, message="Command exited with status 0"),
            "Command exited with status 0",
        ),
        (ended(State.SUCCEEDED, exit_code=0), "Command exited with status 0"),
        (ended(State.SUCCEEDED, exit_code=0, image="busybox"), "Container exited with status 0"),
        (
            ended(State.FAILED, Reason.OOM, exit_code=137, image="busybox"),
            "Container exited with status 137 (out of memory)",
        ),
        (ended(State.FAILED, Reason.EXIT_CODE, exit_code=3), "Command exited with status 3"),
        (ended(State.FAILED, Reason.EXPIRED), "Task waited longer than allowed"),
        (ended(State.FAILED), "Task failed"),
        (ended(State.CANCELLED, message="Command was killed by request"), "task is killed"),
        (ended(State.CANCELLED, by_operator=True), "task is removed by an operator"),
    ],
)
def test_messages(given_facts: Facts, expected: str) -> None:
    assert status.message(given_facts, {4: "no node has rack_id in [r9]", 3: ""}, 30.0) == expected


def test_no_combination_of_facts_is_without_a_message() -> None:
    for state in State:
        for reason in Reason:
            for attempt in (0, 1):
                assert status.message(ended(state, reason, attempt=attempt), {}, 30.0).strip()
