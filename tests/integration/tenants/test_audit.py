"""The audit log: every changing call once, with who and what, without secrets, append only."""

from __future__ import annotations

import signal
import urllib.request
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from tests.integration.config.test_browsers import basic
from tests.integration.conftest import Api, keys
from tests.support.cluster import Cluster
from tests.support.fixtures import Account, make_account
from workers.api.records.serializers import AuditEntrySerializer
from workers.models import AuditEntry, Run, Token
from workers.tenants import audit
from workers.upkeep import retention

TASK = {"taskName": "n", "commands": "echo canary-body"}


def entries() -> list[AuditEntry]:
    assert audit.flush()
    return list(AuditEntry.objects.order_by("pk"))


def test_each_changing_call_is_there_once_with_who_and_what(
    api: Api, account: Account, operator: Account, client: Client
) -> None:
    api(account, "POST", "/v1/tasks", TASK, X_Request_Id="first")
    run = Run.objects.get().pk
    api(account, "GET", f"/v1/tasks?taskIds={run}")
    api(account, "POST", f"/v1/tasks/kill?taskId={run}&password=canary-query")
    api(account, "POST", f"/api/v1/runs/{run}/cancel")
    api(operator, "PATCH", "/api/v1/tenants/default", {"title": "canary-body"})
    client.post("/v1/tasks", TASK, "application/json", headers={"Authorization": "Bearer canary-token"})
    client.post("/v1/tasks", TASK, "application/json", headers=basic(account.user, account.token))

    told = entries()

    assert [(entry.method, entry.route, entry.status) for entry in told] == [
        ("POST", "v1/tasks", 200),
        ("POST", "v1/tasks/kill", 200),
        ("POST", "api/v1/runs/<int:run_id>/cancel", 200),
        ("PATCH", "api/v1/tenants/<str:name>", 200),
        ("POST", "v1/tasks", 401),
        ("POST", "v1/tasks", 200),
    ]
    assert [entry.about for entry in told] == [
        {"run": run},
        {"taskId": str(run)},
        {"run_id": run},
        {"name": "default"},
        {},
        {"run": run + 1},
    ]
    first = told[0]
    assert (first.user_name, first.tenant_name, first.tenant_id) == (
        account.user,
        "default",
        account.tenant_id,
    )
    assert (first.via, first.peer, first.request_id) == ("token", "127.0.0.1", "first")
    assert first.token_prefix == account.token[:12]
    assert (told[4].user_name, told[4].via, told[4].tenant_id) == ("", "", None)
    assert told[5].via == "basic"
    everything = repr([vars(entry) for entry in told])
    assert "canary" not in everything
    assert account.token not in everything


def test_pages_of_the_admin_count_as_well(account: Account) -> None:
    User.objects.filter(username=account.user).update(is_staff=True, is_superuser=True)
    browser = Client()
    browser.force_login(User.objects.get(username=account.user))
    token = Token.objects.get()
    data = {"action": "revoke", "_selected_action": str(token.pk)}
    assert browser.post("/admin/workers/token/", data).status_code == 302
    (entry,) = entries()
    assert (entry.user_name, entry.via, entry.route) == (account.user, "session", "admin/workers/token/")


@pytest.mark.django_db
def test_nobody_changes_or_deletes_an_entry(account: Account, api: Api) -> None:
    api(account, "POST", "/v1/tasks", TASK)
    (entry,) = entries()
    for statement in (
        "UPDATE workers_auditentry SET user_name = 'somebody else'",
        "DELETE FROM workers_auditentry",
    ):
        refused = pytest.raises(DatabaseError, match="append only")
        with refused, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert AuditEntry.objects.get() == entry


def test_old_entries_are_pruned_by_the_setting(settings: Settings, db: None) -> None:
    for days in (9, 11):
        audit.note(audit.Record(timezone.now() - timedelta(days=days), "POST", "x", 200, str(days)))
    entries()
    settings.GANTRY_KEEP_AUDIT_D = 0
    assert retention.prune_once(10)["audit"] == 0
    settings.GANTRY_KEEP_AUDIT_D = 10
    assert retention.prune_once(10)["audit"] == 1
    assert [entry.request_id for entry in AuditEntry.objects.all()] == ["9"]


def test_operators_read_it_in_pages_and_by_filter(api: Api, account: Account, operator: Account) -> None:
    for _ in range(3):
        api(account, "POST", "/v1/tasks", TASK)
    api(operator, "PATCH", "/api/v1/tenants/default", {"title": "t"})
    entries()
    status, body, response = api(operator, "GET", "/api/v1/audit?limit=3")
    assert status == 200
    assert set(body[0]) == keys(AuditEntrySerializer)
    assert [item["method"] for item in body] == ["PATCH", "POST", "POST"]
    following = response["Link"].partition(">")[0].removeprefix("<").partition("testserver")[2]
    assert len(api(operator, "GET", following)[1]) == 1
    assert len(api(operator, "GET", f"/api/v1/audit?user={account.user}&method=POST")[1]) == 3
    assert api(operator, "GET", "/api/v1/audit?tenant=nobody")[1] == []
    assert api(operator, "GET", "/api/v1/audit?after=2999-01-01")[1] == []
    assert api(operator, "GET", "/api/v1/audit?nonsense=1")[0] == 400
    assert api(account, "GET", "/api/v1/audit")[0] == 403


def test_long_and_odd_values_fit(db: None) -> None:
    audit.note(
        audit.Record(
            timezone.now(),
            "M" * 40,
            "r" * 999,
            200,
            "id",
            user_name="u\0" * 200,
            peer="p" * 200,
            about={"name": "n\u0001"},
        )
    )
    (entry,) = entries()
    assert (len(entry.method), len(entry.route), len(entry.peer)) == (16, 255, 64)


def test_while_the_database_is_away_entries_wait_and_are_bounded(
    monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    def away(batch: list[audit.Record]) -> None:
        raise DatabaseError("gone")

    insert = audit._insert
    monkeypatch.setattr(audit, "_insert", away)
    monkeypatch.setattr(audit, "_MOST", 3)
    for number in range(5):
        audit.note(audit.Record(timezone.now(), "POST", "x", 200, str(number)))
    assert not audit.flush()
    monkeypatch.setattr(audit, "_insert", insert)
    assert [entry.request_id for entry in entries()] == ["2", "3", "4"]


def test_nothing_is_lost_on_a_normal_stop(cluster: Cluster) -> None:
    account = make_account("default", scopes=("read", "submit", "operate"))
    api = cluster.api(workers=2)

    def call(path: str, body: bytes, **more: Any) -> None:
        headers = {**account.headers, "Content-Type": "application/json"}
        request = urllib.request.Request(api.url + path, body, headers, **more)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    for _ in range(30):
        call("/v1/tasks", b'{"taskName": "n", "commands": "true"}')
    api.popen.send_signal(signal.SIGTERM)
    api.popen.wait(60)
    assert AuditEntry.objects.filter(route="v1/tasks").count() == Run.objects.count() == 30


def test_an_operators_call_is_written_before_it_is_answered(cluster: Cluster) -> None:
    account = make_account("default", scopes=("read", "submit", "operate"))
    api = cluster.api()
    request = urllib.request.Request(
        api.url + "/api/v1/tenants/default", b'{"title": "t"}', account.headers, method="PATCH"
    )
    with urllib.request.urlopen(request, timeout=60):
        assert AuditEntry.objects.get().route == "api/v1/tenants/<str:name>"


def test_the_admin_shows_it_without_reading_the_whole_table(account: Account, api: Api) -> None:
    User.objects.filter(username=account.user).update(is_staff=True, is_superuser=True)
    for _ in range(3):
        api(account, "POST", "/v1/tasks", TASK)
    entry = entries()[0]
    browser = Client()
    browser.force_login(User.objects.get(username=account.user))
    with CaptureQueriesContext(connection) as queries:
        page = browser.get("/admin/workers/auditentry/?via=token&method=POST").content.decode()
    assert page.count("v1/tasks</td>") == 3
    assert not [query for query in queries if "DISTINCT" in query["sql"]]
    assert entry.request_id in browser.get(f"/admin/workers/auditentry/{entry.pk}/change/").content.decode()
    assert browser.get("/admin/workers/auditentry/?via=basic").content.decode().count("v1/tasks</td>") == 0
    assert browser.get(f"/admin/workers/auditentry/?q={account.user}").status_code == 200
    tenant = browser.get(f"/admin/workers/tenant/{account.tenant_id}/change/").content.decode()
    assert "3 waiting of 200000" in tenant
    data = {"title": "", "limits": '{"waiting": 1}', "policy": "{}", "retention": "{}"}
    data |= {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    refused = browser.post(f"/admin/workers/tenant/{account.tenant_id}/change/", data)
    assert "has no key" in refused.content.decode()
