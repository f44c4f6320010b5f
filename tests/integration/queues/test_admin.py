"""Operators' pages of queues: in queue order, few queries, nothing to change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from queues.models import Entry, Queue
from tests.contracts.queues.conftest import Api, admit, member
from workers.tenants import identity, tenancy


@pytest.fixture
def api(db: None) -> Api:
    identity.forget()
    return member("10002", "ann")


@pytest.fixture
def root(db: None) -> Client:
    browser = Client()
    browser.force_login(tenancy.create_user("root", superuser=True))
    return browser


def page(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def names(text: str) -> list[str]:
    return re.findall(r'class="field-request_id[^>]*>(?:<a[^>]*>)?([\w.-]+)<', text)


def test_entries_in_queue_order(api: Api, root: Client) -> None:
    for name in ("a", "b", "c"):
        api.create(name, callback=f"http://u:canary@r.example/{name}?canary")
    api.create("g", kind="gpu", data={"x": 1})
    api.move("c", before="a")
    admit("b")
    assert names(page(root.get("/admin/queues/entry/")))[-1] == "g"
    assert names(page(root.get("/admin/queues/entry/?type=vm&status=queued"))) == ["c", "a"]
    assert names(page(root.get("/admin/queues/entry/?status=running"))) == ["b"]
    assert names(page(root.get("/admin/queues/entry/?q=c"))) == ["c"]
    pk = Entry.objects.get(request_id="a").pk
    assert names(page(root.get(f"/admin/queues/entry/?q={pk}"))) == ["a"]
    shown = page(root.get(f"/admin/queues/entry/{pk}/change/"))
    assert "canary" not in shown
    assert "r.example" in shown
    assert "no capacity is declared" in shown


def test_nothing_can_be_changed_and_lists_have_few_queries(api: Api, root: Client) -> None:
    for number in range(30):
        api.create(f"n{number}", owner_id=f"o{number}")
    for path in (
        "/admin/queues/entry/add/",
        f"/admin/queues/entry/{Entry.objects.earliest('pk').pk}/delete/",
    ):
        assert root.post(path, {"post": "yes"}).status_code == 403
    for path in ("/admin/queues/entry/", "/admin/queues/queue/", "/admin/queues/waitingclass/"):
        with CaptureQueriesContext(connection) as seen:
            page(root.get(path))
        assert len(seen) <= 9, path
    assert page(root.get(f"/admin/queues/queue/{Queue.objects.get().pk}/change/"))
    assert page(root.get("/admin/queues/queue/?q=vm"))
