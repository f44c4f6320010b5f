"""A long queue costs what a short one does: no call reads more than a few rows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from queues.models import WaitingClass
from tests.contracts.queues.conftest import Api, admit, data, member
from workers.tenants import identity

LONG = 20_000


@pytest.fixture
def api(db: None, remembered: None) -> Api:
    """A queue of so many, a third of them with one number; half as many have ended."""
    identity.forget()
    api = member("10002", "ann")
    api.create("first")
    cls = WaitingClass.objects.get()
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO queues_entry (queue_id, waiting_class_id, request_id, owner_id, data, callback,
                   callback_digest, deliverable, priority, tie, status, ended_at)
               SELECT %s, %s, 'n' || n, 'y', '{}', 'c' || n, 'd' || n, true,
                   CASE WHEN n %% 3 = 0 THEN 0 ELSE n END, 'V' || lpad(n::text, 9, '0') || 'V',
                   CASE WHEN n > %s THEN 'cancelled' ELSE 'queued' END, CASE WHEN n > %s THEN now() END
               FROM generate_series(1, %s) n""",
            [cls.queue_id, cls.pk, LONG, LONG, LONG + LONG // 2],
        )
        cursor.execute("UPDATE queues_waitingclass SET waiting = waiting + %s", [LONG])
        cursor.execute("ANALYZE queues_entry")
    return api


def read() -> tuple[int, int]:
    """Rows of entries that this transaction has read in order of the table, and by an index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'queues_entry'"
        )
        found = cursor.fetchone()
    return int(found[0]), int(found[1] or 0)


def test_no_call_reads_the_queue(api: Api) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: api.post(
            "/v1/vm/",
            {"request_id": "z", "owner_id": "y", "callback": "z", "data": {"instances": [{"VCPU": 1}]}},
        ),
        "a taken id": lambda: api.post(
            "/v1/vm/",
            {"request_id": "n7", "owner_id": "y", "callback": "q", "data": {"instances": [{"VCPU": 1}]}},
        ),
        "read": lambda: api.get("/v1/vm/n5000"),
        "move": lambda: api.post("/v1/vm/n5000", {"priority": 77}),
        "onto a number that thousands have": lambda: api.post("/v1/vm/n5000", {"priority": 0}),
        "to the front": lambda: api.post("/v1/vm/n5000", {"before": "n3"}),
        "before": lambda: api.post("/v1/vm/n5000", {"before": "n9001"}),
        "behind": lambda: api.post("/v1/vm/n5000", {"after": "n9000"}),
        "page": lambda: api.get("/v1/vm/?limit=10").getvalue(),
        "owner's page": lambda: api.get("/v1/vm/?limit=10&owner_id=y&status=queued").getvalue(),
        "nobody's page": lambda: api.get("/v1/vm/?limit=10&owner_id=nobody&status=queued").getvalue(),
        "ended": lambda: api.get("/v1/vm/?limit=10&status=cancelled").getvalue(),
        "withdraw": lambda: api.delete("/v1/vm/n5001"),
        "explain": lambda: api.get("/v1/vm/n5000/explain"),
    }
    for name, call in calls.items():
        before = read()
        call()
        seq, index = (now - was for now, was in zip(read(), before, strict=True))
        assert seq == 0, name
        # An explanation counts who is ahead, up to a thousand.
        assert index <= (4000 if name == "explain" else 60), name
    admit("n5000")
    before = read()
    data(api.delete("/v1/vm/n5000"))
    assert read()[0] == before[0]
    assert read()[1] - before[1] < 60


def test_a_page_from_the_middle(api: Api) -> None:
    first = api.get("/v1/vm/?limit=1000")
    first.getvalue()
    url = first.headers["Link"].partition(">")[0].removeprefix("<http://testserver").replace("1000", "10")
    before = read()
    assert len(data(api.get(url))) == 10
    assert read()[0] == before[0]
    assert read()[1] - before[1] < 60


def test_the_whole_list_is_read_in_order(api: Api) -> None:
    before = sum(read())
    found = data(api.get("/v1/vm/"))
    assert sum(read()) - before > LONG, "what is read is counted"
    assert len(found) == LONG + 1
    assert [entry["Priority"] for entry in found] == sorted(entry["Priority"] for entry in found)
