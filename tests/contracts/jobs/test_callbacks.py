"""X-Callback-Url on start and retry, and what a target's callbacks say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.saved import hooks
from tests.contracts.jobs.conftest import Api, Stage, error, ok
from workers.models import Run
from workers.vocabulary.families import ENDED, RUNNING, CallbackFacts
from workers.vocabulary.states import Reason, State

URL = "http://receiver.example/hook"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def test_the_header_is_kept_with_every_target(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("a", "n1"), ("b", "swarm-2"), X_Callback_Url=URL)
    assert set(Run.objects.values_list("callback_url", flat=True)) == {URL}
    stage.run(job, executor, 0, code=1)
    again = "http://receiver.example/again"
    ok(api.post(f"/api/jobs/{job['JobId']}/retry/{executor}", {}, X_Callback_Url=again))
    assert Run.objects.filter(callback_url=again).count() == 1


def test_a_header_that_is_no_url_starts_nothing(api: Api, stage: Stage) -> None:
    job = api.job()
    answer = api.post(
        f"/api/jobs/{job['JobId']}/start",
        {"Target": [{"ContainerId": "a", "NodeId": "n1"}]},
        X_Callback_Url="ftp://receiver.example",
    )
    assert error(answer, 400)[0].lower() == "invalid_x-callback-url"
    assert not Run.objects.exists()


def facts(**more: Any) -> CallbackFacts:
    given: dict[str, Any] = {
        "run_id": 7,
        "tenant": "t",
        "family": "jobs",
        "kind": "exec",
        "name": "上线",
        "owner_id": "5d1c8f5e-6a0f-4c5f-9c0b-1a2b3c4d5e6f/1700000000",
        "state": State.RUNNING,
        "reason": "",
        "message": "Command is running",
        "exit_code": None,
        "attempt": 1,
        "retries_left": 0,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": None,
        "by_operator": False,
        "image": None,
        "node": "n1",
        "host": "h",
        "facts": {},
        "by": "n1",
        "sequence": 1,
        "signed_log": lambda path, stream: path,
        **more,
    }
    return CallbackFacts(**given)


COMMON = {
    "JobId": "5d1c8f5e-6a0f-4c5f-9c0b-1a2b3c4d5e6f",
    "Executor": "1700000000",
    "RunId": 7,
    "JobName": "上线",
    "NodeName": "n1",
    "Sequence": 1,
}


@pytest.mark.parametrize(
    ("more", "event", "said"),
    [
        ({}, RUNNING, {"Status": "RUNNING"}),
        ({"state": State.SUCCEEDED, "exit_code": 0}, ENDED, {"Status": "FINISHED", "ExitCode": 0}),
        (
            {"state": State.FAILED, "reason": Reason.EXIT_CODE, "exit_code": 3},
            ENDED,
            {"Status": "FINISHED", "ExitCode": 3},
        ),
        (
            {"state": State.CANCELLED, "message": "killed"},
            ENDED,
            {"Status": "RUNNING_FAILED", "E": "killed"},
        ),
        (
            {"state": State.FAILED, "reason": Reason.CREATE, "message": "none", "started_at": None},
            ENDED,
            {"Status": "CREATE_FAILED", "E": "none"},
        ),
        (
            {"state": State.CANCELLED, "message": "killed", "started_at": None, "facts": {"exec_id": "e"}},
            ENDED,
            {"Status": "RUNNING_FAILED", "E": "killed"},
        ),
    ],
)
def test_the_body(more: dict[str, Any], event: str, said: dict[str, Any]) -> None:
    assert hooks.callback(facts(**more), event) == {**COMMON, **said}
