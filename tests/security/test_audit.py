"""After a change nothing can fail its answer, and nothing that a client sends keeps the audit log from it."""

from __future__ import annotations

import http.client
import json
from typing import Any, get_args

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from config.http import metrics, middleware
from tests.integration.conftest import Api
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from workers.messages import doorbell
from workers.models import AuditBegun, AuditEntry, Run
from workers.tenants import audit, begun
from workers.tenants.identity import Via

TASK = {"taskName": "once", "commands": "true"}


def entries() -> list[AuditEntry]:
    assert audit.flush()
    return list(AuditEntry.objects.order_by("pk"))


@pytest.mark.parametrize("part", ["metrics", "log", "headers"])
def test_what_fails_after_the_view_fails_neither_answer_nor_audit(
    api: Api, account: Account, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    where, name = {
        "metrics": (metrics, "count"),
        "log": (middleware, "_log"),
        "headers": (middleware, "_headers"),
    }[part]
    monkeypatch.setattr(where, name, fails)
    assert api(account, "POST", "/v1/tasks", TASK)[0] == 200
    assert Run.objects.count() == 1
    assert [(entry.route, entry.status) for entry in entries()] == [("v1/tasks", 200)]


@pytest.mark.django_db(transaction=True)
def test_a_ring_that_fails_after_the_commit_fails_no_answer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a submission that is answered 500 because its process may start no thread to ring with."""

    def fails(channel: str) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(doorbell, "_ring", fails)
    assert api(make_account("default"), "POST", "/v1/tasks", TASK)[0] == 200
    assert Run.objects.count() == 1
    assert [(entry.route, entry.status) for entry in entries()] == [("v1/tasks", 200)]


def test_one_entry_that_cannot_be_stored_holds_up_no_other(db: None) -> None:
    """Catches a record that the database refuses: it stood in front of all later ones for ever."""
    for about in ({}, {"name": "a\0b"}, {"name": "\ud800"}, {}):
        audit.note(audit.Record(timezone.now(), "POST", "x", 200, str(len(about)), about=about))
    audit.note(audit.Record(timezone.now(), "POST", "x", 200, "a\0b", user_name="\ud800", tenant_name="\0"))
    audit.note(audit.Record(timezone.now(), "POST", "x", 70_000, "too much"))
    audit.note(audit.Record(timezone.now(), "POST", "x", 200, "last"))
    told = entries()
    assert len(told) == 6
    assert told[-1].request_id == "last"


@pytest.mark.parametrize("via", get_args(Via))
def test_every_way_in_is_stored_as_it_is(db: None, via: str) -> None:
    """Catches a way whose name no column holds: reports of pull workers were in no audit log."""
    audit.note(audit.Record(timezone.now(), "PUT", "x", 200, "r", via=via))
    assert entries()[-1].via == via


def test_a_password_in_an_address_is_in_no_error_log_line_or_entry(
    api: Api, account: Account, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for path, body, headers in (
        ("/v1/tasks", TASK, {"X_Callback_Url": "http://user:canary-7/"}),
        ("/v1/tasks", TASK, {"X_Callback_Url": "http://user:canary-7@host/"}),
        ("/v1/tasks", TASK, {"X_Callback_Url": "http://[canary-7]/"}),
        ("/v1/tasks", {**TASK, "callbackUrl": "http://user:canary-7/"}, {}),
        ("/v1/tasks", {"taskName": "c", "container": {"docker": {"image": "u:canary-7@h/x"}}}, {}),
        ("/api/v1/callbacks/test", {"url": "http://user:canary-7/"}, {}),
        ("/api/v1/registries/u:canary-7@h", {"username": "u", "password": "p"}, {}),
        ("/api/v1/registries/canary-7@h", {"username": "u", "password": "p"}, {}),
        ("/api/v1/registries/u:canary-7@h/x", {"username": "u", "password": "p"}, {}),
    ):
        method = "PUT" if "registries" in path else "POST"
        status, answer, _ = api(account, method, path, body, **headers)
        assert status in (400, 404), (path, answer)
        said.append(str(answer))
    status, answer, _ = api(account, "GET", "/api/v1/callbacks?receiver=http://user:canary-7/")
    assert status == 400
    said += [str(answer), *(repr(vars(entry)) for entry in entries()), *capfd.readouterr()]
    assert len(entries()) == 9
    assert "***@h" in "".join(said)
    assert [each for each in said if "canary-7" in each] == []


def test_what_is_committed_is_told_though_its_process_is_killed_before_it_answers(cluster: Cluster) -> None:
    """Catches an entry that exists in a process' memory only while its change is in the database."""
    account = make_account("default")
    api = cluster.api(workers=1, GANTRY_CRASH_AT="api.before_ring")
    link = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=60)
    headers = {**account.headers, "Content-Type": "application/json", "X-Request-Id": "the-last-one"}
    link.request("POST", "/v1/tasks", json.dumps(TASK), headers)
    with pytest.raises((http.client.HTTPException, OSError)):
        link.getresponse()
    assert (Run.objects.count(), AuditEntry.objects.count()) == (1, 0)
    assert begun.take_over(begun.UNANSWERED_S, 10) == 0, "it may be answered still"
    assert begun.take_over(0.0, 10) == 1
    (entry,) = AuditEntry.objects.all()
    assert (entry.route, entry.status, entry.request_id) == ("v1/tasks", 0, "the-last-one")
    assert (entry.user_name, entry.tenant_name, entry.peer) == (account.user, "default", "127.0.0.1")
    assert not AuditBegun.objects.exists()


def test_an_entry_takes_the_place_of_what_its_change_has_left(api: Api, account: Account) -> None:
    assert api(account, "POST", "/v1/tasks", TASK)[0] == 200
    assert AuditBegun.objects.count() == 1
    assert [(entry.status, entry.about) for entry in entries()] == [(200, {"run": Run.objects.get().pk})]
    assert not AuditBegun.objects.exists()
    api(account, "POST", "/v1/tasks", {"taskName": "no command"})
    assert not AuditBegun.objects.exists(), "it was refused: nothing was begun"
    assert [entry.status for entry in entries()] == [200, 400]


@pytest.mark.django_db(transaction=True)
def test_it_is_in_the_commit_of_the_change_and_in_no_other() -> None:
    """Catches a row that went with a rollback and is not written again, and one for a mere look."""
    record = audit.Record(timezone.now(), "POST", "100 % of it", 0, "r")

    def write(cursor: Any, name: str, number: int = 1) -> None:
        cursor.execute("INSERT INTO django_session VALUES (%s, 'a %% of it', now())", [f"{name}-{number}"])

    def marks() -> int:
        return AuditBegun.objects.count()

    with begun.Begun(lambda: record).around(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM workers_tenant FOR UPDATE")
        for _ in range(2):
            with transaction.atomic():
                write(cursor, "rolled-back")
                transaction.set_rollback(True)
        with transaction.atomic():
            with transaction.atomic():
                write(cursor, "inner")
            transaction.set_rollback(True)
        assert marks() == 0
        with transaction.atomic():
            with transaction.atomic():
                write(cursor, "inner")
                transaction.set_rollback(True)
            write(cursor, "kept")
            write(cursor, "kept", 2)
        assert marks() == 1
        write(cursor, "afterwards")
        assert marks() == 1
    with begun.Begun(lambda: record).around(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_session WHERE session_data LIKE '%no such%'")  # no parameters
        assert cursor.rowcount == 0
    with begun.Begun(lambda: record).around(), connection.cursor() as cursor:
        cursor.executemany("DELETE FROM django_session WHERE session_key = %s", [["kept-1"], ["kept-2"]])
    assert marks() == 3
    assert begun.take_over(0.0, 2) == 2
    assert begun.take_over(0.0, 2) == 1
    assert [entry.route for entry in AuditEntry.objects.all()] == ["100 % of it"] * 3


def test_a_session_that_is_gone_after_the_change_fails_no_answer(account: Account) -> None:
    """Catches a change that is answered 400 because its session ended meanwhile (a logout elsewhere)."""
    user = User.objects.get(username=account.user)
    user.is_staff = user.is_superuser = True
    user.set_password("old-canary-1")
    user.save()
    browser = Client()
    browser.force_login(user)

    def ended(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        if 'INSERT INTO "django_session"' in sql:
            Session.objects.all().delete()
        return answer

    form = {"old_password": "old-canary-1", "new_password1": "new-canary-2", "new_password2": "new-canary-2"}
    with connection.execute_wrapper(ended):
        answer = browser.post("/admin/password_change/", form)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/password_change/done/")
    user.refresh_from_db()
    assert user.check_password("new-canary-2")
    assert [(entry.route, entry.status) for entry in entries()] == [("admin/password_change/", 302)]
