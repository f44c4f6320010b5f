"""How entries end, and what became of their callbacks. Page 50, "Status" and "When admitted"."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from django.db import connection

from queues.models import Entry, WaitingClass
from tests.contracts.queues.conftest import Api, admit, data, error, held

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_withdrawing(api: Api) -> None:
    api.create("d")
    assert data(api.delete("/v1/vm/d/")) == {}
    entry = api.entry("d")
    assert entry["Status"] == "cancelled"
    assert TIME.fullmatch(entry["DeletedAt"])
    assert entry["UpdatedAt"] == entry["DeletedAt"]
    assert (entry["CallbackState"], entry["CallbackError"]) == (None, None)
    assert WaitingClass.objects.get().waiting == 0
    assert api.ids() == []
    assert "cancelled" in error(api.delete("/v1/vm/d/"), 409)[1]
    error(api.delete("/v1/vm/nothing/"), 404)
    error(api.delete("/v1/unused/nothing/"), 404)


def test_finishing_gives_back(api: Api) -> None:
    api.create("d", data={"instances": [{"VCPU": 2, "Memory": 3, "Disk": 4}] * 2})
    admit("d")
    assert held() == {"VCPU": 4, "Memory": 6, "Disk": 8}
    assert data(api.delete("/v1/vm/d/")) == {}
    assert api.entry("d")["Status"] == "finished"
    assert held() == {"VCPU": 0, "Memory": 0, "Disk": 0}
    assert WaitingClass.objects.get().waiting == 0
    assert "finished" in error(api.delete("/v1/vm/d"), 409)[1]
    assert held() == {"VCPU": 0, "Memory": 0, "Disk": 0}


def test_confirming(api: Api) -> None:
    api.create("d")
    assert "queued" in error(api.post("/v1/vm/d/confirm"), 409)[1]
    error(api.post("/v1/vm/nothing/confirm"), 404)
    admit("d", hold_ends_at=datetime(2040, 1, 1, tzinfo=UTC))
    assert data(api.post("/v1/vm/d/confirm")) == {}
    first = Entry.objects.get()
    assert first.told_at is not None
    assert first.hold_ends_at == first.told_at
    assert data(api.post("/v1/vm/d/confirm")) == {}
    again = Entry.objects.get()
    assert (again.told_at, again.hold_ends_at) == (first.told_at, first.hold_ends_at)
    data(api.delete("/v1/vm/d"))
    assert "finished" in error(api.post("/v1/vm/d/confirm"), 409)[1]


def test_confirming_with_declared_pools_ends_no_hold(api: Api) -> None:
    api.create("d")
    admit("d")
    data(api.post("/v1/vm/d/confirm"))
    assert Entry.objects.get().hold_ends_at is None
    assert held()["VCPU"] == 1


@pytest.mark.parametrize(
    ("state", "shown", "says"),
    [
        ("due", "due", "no route"),
        ("delivered", "delivered", ""),
        ("dead", "dead", "no route"),
        ("disabled", "dead", "410"),
    ],
)
def test_what_became_of_the_callback(api: Api, state: str, shown: str, says: str) -> None:
    made = api.create("d")
    assert (made["CallbackState"], made["CallbackError"]) == ("due", None)
    entry = admit("d", callback=state)
    if state != "disabled":
        with connection.cursor() as cursor:
            cursor.execute(
                """INSERT INTO workers_callbackattempt (callback_id, at, status, error, ms)
                   SELECT c.id, now(), x.status, x.error, 1 FROM workers_callback c,
                       (VALUES (503, ''), (NULL, 'no route')) x(status, error) WHERE owner_id = %s""",
                [str(entry.pk)],
            )
    found = api.entry("d")
    assert found["CallbackState"] == shown
    assert says in (found["CallbackError"] or "")
    assert (found["CallbackError"] is None) == (not says)
    assert data(api.get("/v1/vm/"))[0] == found


def test_a_status_is_an_error_too(api: Api) -> None:
    api.create("d")
    entry = admit("d")
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO workers_callbackattempt (callback_id, at, status, error, ms)
               SELECT id, now(), 503, '', 1 FROM workers_callback WHERE owner_id = %s""",
            [str(entry.pk)],
        )
    assert "503" in api.entry("d")["CallbackError"]


def test_finishing_leaves_an_undelivered_callback(api: Api) -> None:
    api.create("d")
    admit("d")
    data(api.delete("/v1/vm/d"))
    assert (api.entry("d")["Status"], api.entry("d")["CallbackState"]) == ("finished", "due")
