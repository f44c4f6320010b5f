"""Operators' pages of queues: in queue order, few queries, nothing to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    assert names(page(root.get("/admin/queues/entry/"))) == ["c", "a", "g"], "what waits"
    assert names(page(root.get("/admin/queues/entry/?o=2"))) == ["c", "a", "g"], "no other order"
    assert names(page(root.get("/admin/queues/entry/?type=vm&status=queued"))) == ["c", "a"]
    assert names(page(root.get("/admin/queues/entry/?status=running"))) == ["b"]
    assert names(page(root.get("/admin/queues/entry/?q=c"))) == ["c"]
    assert names(page(root.get("/admin/queues/entry/?q=b"))) == ["b"], "a search is in all"
    pk = Entry.objects.get(request_id="a").pk
    assert names(page(root.get(f"/admin/queues/entry/?q={pk}"))) == ["a"]
    shown = page(root.get(f"/admin/queues/entry/{pk}/change/"))
    assert "canary" not in shown
    assert "r.example" in shown
    assert "What helps: " in shown, "why it waits"


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


def test_what_has_ended_and_what_runs_has_its_order(api: Api, root: Client) -> None:
    for name in ("a", "b", "c", "d"):
        api.create(name)
    admit("c")
    admit("a")
    assert names(page(root.get("/admin/queues/entry/?status=running"))) == ["c", "a"], "by admission"
    for name in ("b", "d"):
        api.delete(f"/v1/vm/{name}")
    assert names(page(root.get("/admin/queues/entry/?status=cancelled"))) == ["d", "b"], "the newest first"
    assert names(page(root.get("/admin/queues/entry/"))) == []


@pytest.fixture
def crowded(api: Api) -> None:
    """Of two tenants and two types so many wait, and half as many have ended."""
    member("10003", "bob").create("x", kind="other", data={"x": 1})
    for kind in ("vm", "other"):
        api.create("first", kind=kind, data={"instances": [{"VCPU": 1}]} if kind == "vm" else {"x": 1})
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO queues_entry (queue_id, waiting_class_id, request_id, owner_id, data, callback,
                   callback_digest, deliverable, priority, tie, status, ended_at)
               SELECT c.queue_id, c.id, 'n' || n, 'y', '{}', 'c' || n, 'd' || n, true, %s - n, 'V',
                   CASE WHEN n > %s THEN 'cancelled' ELSE 'queued' END, CASE WHEN n > %s THEN now() END
               FROM queues_waitingclass c, generate_series(1, %s) n""",
            [LONG, LONG, LONG, LONG + LONG // 2],
        )
        cursor.execute("UPDATE queues_waitingclass SET waiting = waiting + %s", [LONG])
        cursor.execute("ANALYZE queues_entry")
        cursor.execute("ANALYZE queues_queue")


LONG = 8_000


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("query", ["", "?type=vm", "?status=cancelled", "?status=cancelled&type=vm", "?p=20"])
def test_no_page_sorts_or_reads_what_it_does_not_show(crowded: None, root: Client, query: str) -> None:
    """Catches an order that no index has, and a filter that makes a queue be read to its end."""
    with CaptureQueriesContext(connection) as seen:
        shown = names(page(root.get(f"/admin/queues/entry/{query}")))
    assert len(shown) == 50
    assert len(seen) <= 10
    (listing,) = [each["sql"] for each in seen if '"queues_entry"."request_id"' in each["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {listing}")
        found = list(nodes(cursor.fetchone()[0][0]["Plan"]))
    kinds = [each["Node Type"] for each in found]
    assert "Sort" not in kinds, kinds
    read = [each for each in found if each.get("Relation Name") == "queues_entry"]
    assert read
    most = 50 + 50 * int(query.partition("p=")[2] or 0) + 1
    for each in read:
        assert each["Actual Rows"] * each["Actual Loops"] <= most, each
        assert each["Node Type"] == "Index Scan"
        if "status" not in query:
            assert not each.get("Rows Removed by Filter"), each


def test_a_request_is_found_without_reading_the_table(crowded: None, root: Client) -> None:
    """Catches a search that reads all entries: an id is unique in a queue, not in the table."""
    with CaptureQueriesContext(connection) as seen:
        assert names(page(root.get("/admin/queues/entry/?q=n77"))) == ["n77"] * 3
    (listing,) = [each["sql"] for each in seen if '"queues_entry"."request_id",' in each["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {listing}")
        found = list(nodes(cursor.fetchone()[0][0]["Plan"]))
    (read,) = [each for each in found if each.get("Relation Name") == "queues_entry"]
    assert (read["Node Type"], read["Index Name"]) == ("Index Scan", "entry_request_once")
    assert "queue_id" in read["Index Cond"], "not the index from end to end"
