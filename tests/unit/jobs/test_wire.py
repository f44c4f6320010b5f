"""The pure parts of saved jobs: words, the secrets' rule, the state table, names of files, error ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.saved import errors, requests, wire
from jobs.saved.wire import ExecutorFacts, Status, TargetFacts
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.states import Reason, State

EXECUTOR = ExecutorFacts(1, UUID(int=1), 100, 100.5, "n", "sh -c 'echo a'", True, "root", [3, 1])


def target(state: str | None = None, **given_facts: Any) -> TargetFacts:
    """A target whose run is in this state; without one it has no run."""
    plain: dict[str, Any] = {
        "executor_id": 1,
        "container": "c",
        "node": "n1",
        "error": "" if state else "no node",
        "run_id": 7 if state else None,
        "state": state,
        "reason": "" if state else None,
        "message": "" if state else None,
        "exit_code": None,
        "attempt": 1 if state else None,
        "started": None,
        "finished": None,
        "pruned": False,
        "facts": {} if state else None,
    }
    return TargetFacts(**{**plain, **given_facts})


CREATED: dict[str, Any] = {"facts": {"exec_id": "e"}}
STARTED: dict[str, Any] = {"started": 1.5}


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (target(), Status.CREATE_FAILED),
        (target(State.PENDING), Status.STARTING),
        (target(State.PENDING, **CREATED), Status.STARTING),
        (target(State.RUNNING), Status.STARTING),
        (target(State.RUNNING, **CREATED), Status.CREATED),
        (target(State.RUNNING, **STARTED), Status.RUNNING),
        (target(State.SUCCEEDED, **STARTED), Status.FINISHED),
        (target(State.FAILED, reason=Reason.EXIT_CODE, exit_code=1, **STARTED), Status.FINISHED),
        (target(State.FAILED, reason=Reason.OOM, exit_code=137, **STARTED), Status.FINISHED),
        (target(State.FAILED, reason=Reason.OOM, **STARTED), Status.RUNNING_FAILED),
        (target(State.FAILED, reason=Reason.TIMEOUT, exit_code=137, **STARTED), Status.RUNNING_FAILED),
        (target(State.CANCELLED, exit_code=137, **STARTED), Status.RUNNING_FAILED),
    ],
)
def test_the_state_table(facts: TargetFacts, wanted: Status) -> None:
    assert wire.status(facts) is wanted


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.EXIT_CODE])
def test_every_other_end_depends_on_the_exec_and_says_why(state: State, reason: Reason) -> None:
    never = state == State.FAILED and reason == Reason.CREATE
    for facts, wanted in (
        ({}, Status.CREATE_FAILED),
        (CREATED, Status.CREATE_FAILED if never else Status.RUNNING_FAILED),
        (STARTED, Status.CREATE_FAILED if never else Status.RUNNING_FAILED),
    ):
        found = target(state, reason=reason, **facts)
        result = wire.render_result(EXECUTOR, found, b"")
        assert (result["Status"], bool(result["E"]), "ExitCode" in result) == (wanted, True, False)
        assert wire.failed(found)


def test_what_a_retry_repeats() -> None:
    again = [
        target(),
        target(State.CANCELLED),
        target(State.FAILED, reason=Reason.EXIT_CODE, exit_code=1, **STARTED),
    ]
    assert [wire.failed(item) for item in again] == [True] * 3
    others = [
        target(State.PENDING),
        target(State.RUNNING),
        target(State.RUNNING, **CREATED),
        target(State.RUNNING, **STARTED),
        target(State.SUCCEEDED, **STARTED),
    ]
    assert [wire.failed(item) for item in others] == [False] * 5


def test_process_config_is_the_users_words_and_asterisks() -> None:
    done = target(State.SUCCEEDED, exit_code=0, started=1.5, finished=2.5, facts={"pid": 5})
    result = wire.render_result(EXECUTOR, done, b"\xffx")
    assert result["ProcessConfig"] == {
        "user": "root",
        "tty": False,
        "entrypoint": "sh",
        "arguments": ["-c", "echo a", "***", "*"],
        "privileged": True,
    }
    assert (result["Pid"], result["ContainerID"], result["Output"]) == (5, "", "\ufffdx")
    assert (result["StartTime"], result["EndTime"], "ID" in result) == (1.5, 2.5, False)


@pytest.mark.parametrize(
    ("cmd", "found"),
    [
        ("ps axu", ["ps", "axu"]),
        ("sh -c \"echo 'a  b' | wc\"", ["sh", "-c", "echo 'a  b' | wc"]),
        ("a  'b c'd \"\" e\\ f\n#g", ["a", "b cd", "", "e f", "#g"]),
        ("echo $HOME *", ["echo", "$HOME", "*"]),
    ],
)
def test_words(cmd: str, found: list[str]) -> None:
    assert requests.words(cmd) == found


@given(
    st.lists(st.text(alphabet="*ab", min_size=1, max_size=3), max_size=4),
    st.lists(st.integers(1, 3), max_size=4),
)
def test_secrets_are_kept_by_their_asterisks_only(sent: list[str], lengths: list[int]) -> None:
    """Nothing is kept that was not meant, and asterisks never are a secret, beside clear ones neither."""
    fits = [
        place if place < len(lengths) and text == "*" * lengths[place] else None
        for place, text in enumerate(sent)
    ]
    if any(set(text) == {"*"} and fit is None for text, fit in zip(sent, fits, strict=True)):
        with pytest.raises(InvalidInput, match="SecretArgs"):
            requests.keep(sent, lengths)
    else:
        assert requests.keep(sent, lengths) == fits


@given(st.text(max_size=300))
def test_file_names_hold_nothing_that_ends_a_header(container: str) -> None:
    name = wire.log_name(container, datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC))
    assert name.startswith("job-container-")
    assert name.endswith("-2026-11-25-01:02:03.log")
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:")


@pytest.mark.parametrize(
    ("status", "code", "field", "wanted"),
    [
        (400, "jobs_name_duplicated_error", "Name", "jobs_name_duplicated_error"),
        (400, "invalid", "Target[3].NodeId", "invalid_Target"),
        (400, "malformed", None, "invalid_body"),
        (401, "token_missing", None, "unauthenticated"),
        (403, "forbidden", None, "forbidden"),
        (404, "job_id_not_found", None, "job_id_not_found"),
        (404, "executor_id_not_found", None, "executor_id_not_found"),
        (404, "container_id_not_found", None, "container_id_not_found"),
        (404, "not_found", None, "not_found"),
        (405, "method_not_allowed", None, "method_not_allowed"),
        (409, "idempotency_key_reused", None, "conflict"),
        (413, "too_large", None, "too_large"),
        (415, "unsupported_media_type", None, "unsupported_media_type"),
        (429, "throttled", None, "too_many_requests"),
        (500, "internal", None, "internal_error"),
        (503, "database", None, "internal_error"),
    ],
)
def test_error_ids(status: int, code: str, field: str | None, wanted: str) -> None:
    assert errors.render_error(status, code, "m", field) == {"message": "m", "id": wanted}
