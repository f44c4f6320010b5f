"""After a change nothing can fail its answer, and nothing that a client sends keeps the audit log from it."""

from __future__ import annotations

from typing import get_args

import pytest
from django.utils import timezone

from config.http import metrics, middleware
from tests.integration.conftest import Api
from tests.support.fixtures import Account
from workers.models import AuditEntry, Run
from workers.tenants import audit
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
