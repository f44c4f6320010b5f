"""The tasks family on the wire, pure: ids, dates, answers, the error envelope, hooks."""

from __future__ import annotations

import locale
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks_api import codes, wire
from tasks_api.status import Facts
from tests.unit.tasks_api.test_status import ENDED, ended, facts, running
from workers.vocabulary.errors import EngineError, InvalidInput
from workers.vocabulary.states import Reason, State

# --- Ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ("1", [1]),
        (" 3 , 1,\t2 ", [3, 1, 2]),
        ("5,5,4,5", [5, 4]),
        ("1,2,", [1, 2]),
        ("+8,-9", [8, -9]),
        ("007", [7]),
        (str(2**63 - 1), [2**63 - 1]),
        (str(-(2**63)), [-(2**63)]),
        ([1, "2", 3.0], [1, 2, 3]),
        (7, [7]),
        ("806769905152840693,806769905152840695", [806769905152840693, 806769905152840695]),
    ],
)
def test_task_ids(asked: object, ids: list[int]) -> None:
    assert wire.parse_ids(asked) == ids


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        (None, codes.MISSING),
        ("", codes.MISSING),
        ("  ", codes.MISSING),
        ([], codes.MISSING),
        ([None], codes.MISSING),
        (",", codes.BAD_IDS),
        ("1,,2", codes.BAD_IDS),
        ("a", codes.BAD_IDS),
        ("1;2", codes.BAD_IDS),
        ("1.0", codes.BAD_IDS),
        ("1_000", codes.BAD_IDS),
        ("٣", codes.BAD_IDS),
        ("0x10", codes.BAD_IDS),
        (str(2**63), codes.BAD_IDS),
        ("9" * 5000, codes.BAD_IDS),
        ([True], codes.BAD_IDS),
        ([[1]], codes.BAD_IDS),
        (1.5, codes.BAD_IDS),
        ({"a": 1}, codes.BAD_IDS),
        (",".join(map(str, range(1001))), codes.NOT_ALLOWED),
    ],
)
def test_task_ids_that_are_refused(asked: object, number: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        wire.parse_ids(asked)
    assert codes.number(400, caught.value.code) == number
    assert "taskIds" in caught.value.message


def test_a_thousand_ids_are_taken_however_often_each() -> None:
    assert len(wire.parse_ids(",".join(map(str, [*range(1000), *range(1000)])))) == 1000


@given(st.text(max_size=30))
def test_any_text_is_ids_or_an_error(text: str) -> None:
    try:
        ids = wire.parse_ids(text)
    except (codes.Missing, codes.BadIds):
        return
    assert all(-(2**63) <= found < 2**63 for found in ids)


# --- Dates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2016, 12, 8, 16, 3, 8, tzinfo=UTC), "Dec 8, 2016 4:03:08 PM"),
        (datetime(2016, 12, 8, 15, 58, 29, 999999, tzinfo=UTC), "Dec 8, 2016 3:58:29 PM"),
        (datetime(2026, 1, 31, 0, 0, 0, tzinfo=UTC), "Jan 31, 2026 12:00:00 AM"),
        (datetime(2026, 5, 1, 12, 9, 5, tzinfo=UTC), "May 1, 2026 12:09:05 PM"),
        (datetime(2026, 5, 1, 11, 59, 59, tzinfo=UTC), "May 1, 2026 11:59:59 AM"),
        (datetime(2026, 5, 1, 1, 0, 0, tzinfo=timezone(timedelta(hours=2))), "Apr 30, 2026 11:00:00 PM"),
    ],
)
def test_dates(moment: datetime, expected: str) -> None:
    assert wire.date(moment) == expected


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001
def test_dates_are_what_the_c_locale_would_print(moment: datetime) -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        locale.setlocale(locale.LC_TIME, "C")
        printed = f"{moment:%b} {moment.day}, {moment.year} {int(f'{moment:%I}')}:{moment:%M:%S %p}"
    finally:
        locale.setlocale(locale.LC_TIME, before)
    assert wire.date(moment.replace(tzinfo=UTC)) == printed


# --- Answers -----------------------------------------------------------------------------------------


def test_a_finished_container_is_rendered_as_the_seed_shows_it() -> None:
    found = ended(
        State.SUCCEEDED,
        id=806769905152840693,
        name="test-docker",
        commands=None,
        image="dockerhub.XXXX.com/juice-test",
        exit_code=0,
        callback_url="http://localhost:9999/v1/callback",
        host="agent-7",
        retries_left=2,
    )
    assert wire.render_task(found, "10002", {}, 30.0) == {
        "taskId": 806769905152840693,
        "taskName": "test-docker",
        "tenantId": "10002",
        "dockerImage": "dockerhub.XXXX.com/juice-test",
        "taskStatus": 2,
        "message": "Container exited with status 0",
        "callbackUrl": "http://localhost:9999/v1/callback",
        "submitAt": "Dec 8, 2016 3:58:29 PM",
        "finishAt": "Dec 8, 2016 4:03:08 PM",
        "agentHost": "agent-7",
        "retry": 2,
    }


def test_absent_values_are_left_out() -> None:
    assert wire.render_task(facts(), "default", {}, 30.0) == {
        "taskId": 7,
        "taskName": "test-commands",
        "tenantId": "default",
        "commands": "/home/app/entrypoint.sh",
        "taskStatus": -1,
        "message": "Task is waiting: it is about to start",
        "submitAt": "Dec 8, 2016 3:58:29 PM",
        "retry": 0,
    }


def test_the_agent_is_named_by_its_hostname_else_by_its_name() -> None:
    assert wire.render_task(running(), "t", {}, 30.0)["agentHost"] == "n1"
    assert wire.render_task(running(host="h1"), "t", {}, 30.0)["agentHost"] == "h1"


@pytest.mark.parametrize(
    ("after", "accepted", "message", "number"),
    [
        (facts(state=State.CANCELLED, finished_at=ENDED), True, "task is killed", 6),
        (running(cancel_requested_at=ENDED), True, "juice accept kill task command", 1),
        (running(started_at=None), True, "juice accept kill task command", 0),
        (ended(State.CANCELLED), True, "task is killed", 6),
        (ended(State.FAILED, Reason.EXIT_CODE, exit_code=3), False, "Command exited with status 3", 3),
        (ended(State.CANCELLED), False, "task is killed", 6),
    ],
)
def test_kill_answers(after: Facts, accepted: bool, message: str, number: int) -> None:
    assert wire.render_kill(after, accepted, 30.0) == {
        "submitKill": accepted,
        "submitTask": accepted,
        "resultMessage": message,
        "currentStatus": number,
    }


def test_reconcile_answers() -> None:
    assert wire.render_reconcile([3, 1, 2], {1: (True, "it runs"), 3: (False, "node n1 did not answer")}) == {
        "request": 3,
        "reconcile": 1,
        "reconciles": [
            {"taskId": 3, "reconciled": False, "message": "node n1 did not answer"},
            {"taskId": 1, "reconciled": True, "message": "it runs"},
            {"taskId": 2, "reconciled": False, "message": "invalid taskId"},
        ],
    }


# --- Errors and hooks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("http", "code", "number"),
    [
        (400, "missing", -2127552257),
        (400, "malformed", -2127552007),
        (400, "not_allowed", -2127552256),
        (400, "refused", -2127552256),
        (400, "refused_by_policy", -2127552256),
        (400, "invalid", -2127552256),
        (400, "unsupported", -2127552017),
        (400, "bad_ids", -2127552019),
        (400, "no_such_record", -2127560608),
        (404, "no_such_task", -2127560608),
        (401, "token_missing", -2127552013),
        (401, "token_invalid", -2127552014),
        (401, "token_expired", -2127552015),
        (403, "forbidden", -2127560624),
        (404, "not_found", -2127560592),
        (405, "method_not_allowed", -2127560592),
        (409, "idempotency_key_reused", -2127560592),
        (413, "too_large", -2127560592),
        (415, "unsupported_media_type", -2127560592),
        (429, "throttled", -2127560592),
        (500, "internal", -2127560704),
        (503, "unavailable", -2127560704),
        (503, "database", -2127552011),
    ],
)
def test_error_numbers(http: int, code: str, number: int) -> None:
    assert wire.render_error(http, code, "what is wrong", None) == {
        "status": number,
        "message": "what is wrong",
    }


def test_the_message_of_an_error_names_the_field_once() -> None:
    assert wire.render_error(400, "missing", "is blank", "taskName")["message"] == "taskName: is blank"
    assert (
        wire.render_error(400, "missing", "taskName is blank", "taskName")["message"] == "taskName is blank"
    )


def test_every_error_of_the_family_has_a_number_of_its_own_or_a_documented_one() -> None:
    for error in (*InvalidInput.__subclasses__(), codes.NoSuchTask):
        if error.__module__ == codes.__name__:
            assert issubclass(error, EngineError)
            assert error.code in codes.NUMBERS


def test_the_owner_of_a_run_is_the_task() -> None:
    assert wire.owner(SimpleNamespace(pk=42)) == {"id": "42", "url": "/v1/tasks/42"}
