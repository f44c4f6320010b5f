"""What of queues is deleted when: ended entries with their callbacks, ids after a year, unused classes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection

from queues.entries import retention
from queues.models import Entry, Tombstone, WaitingClass
from tests.contracts.queues.conftest import BODY, Api, admit, data, error, member
from workers.models import Callback, Tenant
from workers.tenants import identity
from workers.upkeep import retention as engine

NOTHING = {"entries": 0, "entry_classes": 0, "entry_tombstones": 0}


@pytest.fixture
def api(db: None, settings: Any) -> Api:
    settings.GANTRY_KEEP_RUNS_D = 90
    identity.forget()
    return member("10002", "ann")


def age(days: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queues_entry SET ended_at = ended_at - %s * interval '1 day'", [days])


def test_old_ended_entries_leave_their_ids(api: Api) -> None:
    for name in ("queued", "running", "finished", "cancelled", "fresh"):
        api.create(name, owner_id=name)
    admit("running")
    admit("finished")
    for name in ("finished", "cancelled"):
        api.delete(f"/v1/vm/{name}")
    age(91)
    api.delete("/v1/vm/fresh")
    counts = engine.prune_once(100)
    assert (counts["entries"], counts["entry_classes"]) == (2, 2)
    connection.check_constraints()
    assert set(Entry.objects.values_list("request_id", flat=True)) == {"queued", "running", "fresh"}
    assert set(Tombstone.objects.values_list("request_id", flat=True)) == {"finished", "cancelled"}
    assert set(WaitingClass.objects.values_list("owner_id", flat=True)) == {"queued", "running", "fresh"}
    assert Callback.objects.count() == 1, "the running one's"
    error(api.get("/v1/vm/finished"), 404)
    error(api.post("/v1/vm/", {**BODY, "request_id": "finished"}), 409)
    assert retention.prune(100) == NOTHING


def test_an_id_is_free_after_a_year(api: Api) -> None:
    data(api.post("/v1/vm/", BODY))
    api.delete("/v1/vm/d")
    age(91)
    assert retention.prune(100) == {"entries": 1, "entry_classes": 1, "entry_tombstones": 0}
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queues_tombstone SET until = until - interval '364 days'")
        assert retention.prune(100) == NOTHING
        cursor.execute("UPDATE queues_tombstone SET until = until - interval '2 days'")
    assert retention.prune(100) == {**NOTHING, "entry_tombstones": 1}
    data(api.post("/v1/vm/", BODY))


def test_each_tenants_own_times(api: Api) -> None:
    other = member("10003", "bob")
    third = member("10004", "cid")
    Tenant.objects.filter(name="10003").update(retention={"families": {"queues": {"runs_d": 10}}})
    Tenant.objects.filter(name="10004").update(retention={"runs_d": 0})
    for who in (api, other, third):
        who.create("d")
        data(who.delete("/v1/vm/d"))
    age(11)
    assert retention.prune(100)["entries"] == 1
    error(other.get("/v1/vm/d"), 404)
    age(9999)
    assert retention.prune(100)["entries"] == 1
    error(api.get("/v1/vm/d"), 404)
    assert third.entry("d")["Status"] == "cancelled"


def test_a_round_is_bounded(api: Api) -> None:
    for number in range(5):
        api.create(f"n{number}", owner_id=f"o{number}")
        api.delete(f"/v1/vm/n{number}")
    age(91)
    assert [retention.prune(2)["entries"] for _ in range(4)] == [2, 2, 1, 0]
    assert retention.prune(2)["entry_classes"] == 0
    assert not WaitingClass.objects.exists()


def test_zero_keeps_for_ever(api: Api, settings: Any) -> None:
    settings.GANTRY_KEEP_RUNS_D = 0
    api.create("d")
    api.delete("/v1/vm/d")
    age(9999)
    assert retention.prune(100) == NOTHING


def test_operators_set_it_by_the_familys_name(api: Api) -> None:
    operator = member("10005", "op", "read", "submit", "operate")
    sent = {"retention": {"families": {"queues": {"runs_d": 3}}}}
    answer = operator.send("PATCH", "/api/v1/tenants/10002", json.dumps(sent), "application/json")
    assert answer.status_code == 200, answer.content
    api.create("d")
    api.delete("/v1/vm/d")
    age(4)
    assert retention.prune(100)["entries"] == 1
