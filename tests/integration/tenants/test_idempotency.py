"""Idempotency-Key: one thing per key, whatever is sent twice, at once, with a slash, or after a failure."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client

from tests.contracts.tasks.conftest import Stage
from tests.integration.conftest import Api
from tests.support.engine import submit
from tests.support.fixtures import Account, make_account
from tests.support.session import POSTGRES
from tests.support.waiting import limit, wait_until
from workers.models import IdempotencyKey, Run, Tenant
from workers.tenants import idempotency
from workers.vocabulary.errors import Conflict, IdempotencyConflict, InvalidInput, Unavailable
from workers.vocabulary.states import State

TASK = {"taskName": "once", "commands": "true"}


def test_the_same_key_and_body_make_one_thing_and_one_answer(api: Api, account: Account) -> None:
    answers = [
        api(account, "POST", path, TASK, Idempotency_Key="k")[:2]
        for path in ("/v1/tasks", "/v1/tasks/", "/v1/tasks")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 200
    assert Run.objects.count() == 1


def test_another_body_is_409_in_the_familys_envelope(api: Api, account: Account) -> None:
    api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")
    status, body, _ = api(account, "POST", "/v1/tasks", {**TASK, "commands": "false"}, Idempotency_Key="k")
    assert status == 409
    assert body["status"] == -2127560592
    assert "'k'" in body["message"]
    assert Run.objects.count() == 1


def test_keys_of_other_tenants_and_paths_are_others(
    api: Api, account: Account, stranger: Account, stage: Stage
) -> None:
    first, second = submit(account.tenant_id, "true"), submit(account.tenant_id, "true")
    stage.end(first, State.SUCCEEDED)
    stage.end(second, State.SUCCEEDED)
    made = {
        api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[1]["data"]["taskId"],
        api(stranger, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[1]["data"]["taskId"],
        api(account, "POST", f"/api/v1/runs/{first}/retry", Idempotency_Key="k")[1]["id"],
        api(account, "POST", f"/api/v1/runs/{second}/retry", Idempotency_Key="k")[1]["id"],
    }
    assert len(made) == 4
    assert api(account, "POST", f"/api/v1/runs/{first}/retry/", Idempotency_Key="k")[1]["id"] in made
    assert Run.objects.count() == 6


def test_only_success_is_kept(api: Api, account: Account, stage: Stage) -> None:
    assert api(account, "POST", "/v1/tasks", {"taskName": "x"}, Idempotency_Key="k")[0] == 400
    run_id = submit(account.tenant_id, "true")
    assert api(account, "POST", f"/api/v1/runs/{run_id}/retry", Idempotency_Key="k")[0] == 409
    assert IdempotencyKey.objects.count() == 0
    stage.end(run_id, State.FAILED)
    assert api(account, "POST", f"/api/v1/runs/{run_id}/retry", Idempotency_Key="k")[0] == 201
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[0] == 200


@pytest.mark.parametrize(("key", "status"), [("", 400), ("x" * 255, 200), ("x" * 256, 400), ("ключ", 400)])
def test_length_of_a_key(api: Api, account: Account, key: str, status: int) -> None:
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key=key)[0] == status
    assert Run.objects.count() == (status == 200)


def test_a_key_is_forgotten_after_a_day(api: Api, account: Account) -> None:
    first = api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[1]
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[1] == first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24, minutes=1))
    other = {**TASK, "commands": "false"}
    second = api(account, "POST", "/v1/tasks", other, Idempotency_Key="k")
    assert second[0] == 200
    assert second[1] != first
    assert api(account, "POST", "/v1/tasks", other, Idempotency_Key="k")[1] == second[1]
    assert IdempotencyKey.objects.count() == 1


def test_operators_creating_requests_are_once_only_too(api: Api, operator: Account) -> None:
    for path, body in (("tenants", {"name": "lab"}), ("users", {"name": "ann"})):
        first = api(operator, "POST", f"/api/v1/{path}", body, Idempotency_Key="o")
        assert first[0] == 201
        assert api(operator, "POST", f"/api/v1/{path}", body, Idempotency_Key="o")[:2] == first[:2]
        assert api(operator, "POST", f"/api/v1/{path}", body)[0] == 409


def test_a_failing_creation_takes_its_key_with_it(account: Account) -> None:
    def fails() -> tuple[int, dict[str, Any]]:
        Tenant.objects.create(name="half")
        raise Conflict("no")

    def refuses() -> tuple[int, dict[str, Any]]:
        return 400, {"no": True}

    for create in (fails, refuses):
        if create is fails:
            with pytest.raises(Conflict):
                idempotency.once(account.tenant_id, None, "POST", "/x", "k", b"", create)
        else:
            assert idempotency.once(account.tenant_id, None, "POST", "/x", "k", b"", create) == (
                400,
                {"no": True},
                False,
            )
        assert not Tenant.objects.filter(name="half").exists()
        assert IdempotencyKey.objects.count() == 0


def test_a_long_path_is_kept_apart_from_another(account: Account) -> None:
    paths = [f"/{'a' * 300}{end}" for end in "bc"]
    for number, path in enumerate(paths):
        assert idempotency.once(
            account.tenant_id,
            None,
            "POST",
            path,
            "k",
            b"",
            lambda n=number: (200, {"n": n}),  # type: ignore[misc]
        ) == (200, {"n": number}, False)
    assert idempotency.once(account.tenant_id, None, "POST", paths[0] + "/", "k", b"", lambda: (200, {})) == (
        200,
        {"n": 0},
        True,
    )
    with pytest.raises(InvalidInput):
        idempotency.once(account.tenant_id, None, "POST", "/x", "", b"", lambda: (200, {}))
    with pytest.raises(IdempotencyConflict):
        idempotency.once(account.tenant_id, None, "POST", paths[0], "k", b"other", lambda: (200, {}))


# --- At the same time ----------------------------------------------------------------------------------


def at_once(count: int, work: Any) -> list[Any]:
    """``work(number)`` in as many threads, started together; their results."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def one(number: int) -> None:
        gate.wait()
        try:
            results[number] = work(number)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(120))
    return results


@pytest.mark.django_db(transaction=True)
def test_sixteen_at_once_make_one_thing() -> None:
    account = make_account("default")

    def send(_: int) -> tuple[int, bytes]:
        answer = Client().post(
            "/v1/tasks",
            json.dumps(TASK),
            "application/json",
            headers={**account.headers, "Idempotency-Key": "k"},
        )
        return answer.status_code, answer.content

    answers = at_once(16, send)
    assert {status for status, _ in answers} == {200}
    assert len({json.dumps(json.loads(body), sort_keys=True) for _, body in answers}) == 1
    assert Run.objects.count() == 1


def _wait_for_one_that_waits() -> None:
    """Until a transaction waits for a lock. By a link of its own: others see what was at their start."""
    with contextlib.closing(POSTGRES.connect(str(connection.settings_dict["NAME"]))) as link:
        link.autocommit = True

        def somebody_waits() -> bool:
            with link.cursor() as cursor:
                cursor.execute(
                    """SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'"""
                )
                return cursor.fetchone() != (0,)

        wait_until(somebody_waits, why="the second one waits")


@pytest.mark.django_db(transaction=True)
def test_the_second_goes_on_when_the_first_fails() -> None:
    account = make_account("default")
    begun = threading.Event()

    def work(number: int) -> Any:
        def create() -> tuple[int, dict[str, Any]]:
            if number == 0:
                begun.set()
                _wait_for_one_that_waits()
                raise Conflict("the first fails")
            return 200, {"by": number}

        if number == 1:
            begun.wait(limit(60))
        try:
            return idempotency.once(account.tenant_id, None, "POST", "/x", "k", b"", create)
        except Conflict as error:
            return error.message

    assert at_once(2, work) == ["the first fails", (200, {"by": 1}, False)]


@pytest.mark.django_db(transaction=True)
def test_one_that_waits_too_long_is_told_to_come_back() -> None:
    account = make_account("default")
    begun = threading.Event()
    waited = threading.Event()

    def work(number: int) -> Any:
        def create() -> tuple[int, dict[str, Any]]:
            begun.set()
            waited.wait(limit(60))
            return 200, {"by": number}

        if number == 0:
            return idempotency.once(account.tenant_id, None, "POST", "/x", "k", b"", create)
        begun.wait(limit(60))
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL lock_timeout = '200ms'")
                return idempotency.once(account.tenant_id, None, "POST", "/x", "k", b"", create)
        except Unavailable as error:
            return error.message
        finally:
            waited.set()

    first, second = at_once(2, work)
    assert first == (200, {"by": 0}, False)
    assert "still being worked on" in second
