"""Somebody stands still in a transaction: others are admitted all the same, and it does not last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from django.db import connection

from queues import locks
from queues.admission import look as looks
from queues.admission.look import look, look_at_all
from queues.admission.settle import settle
from queues.entries import services, wire
from queues.models import Entry, TypePolicy
from tests.integration.queues.scene import KIND, entry, pool, running
from tests.support.waiting import wait_until
from workers.models import Callback, Tenant
from workers.tenants import tenancy

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.invariant]


class Frozen:
    """A connection of its own that has begun something and says nothing more: idle in its transaction."""

    def __init__(self) -> None:
        given = {**connection.get_connection_params()}
        for name in ("cursor_factory", "context"):
            given.pop(name, None)
        self.connection = psycopg2.connect(**given)
        self.cursor = self.connection.cursor()
        # Only what a change says of itself ends it, not what the settings say of all connections.
        self.cursor.execute("SET idle_in_transaction_session_timeout = 0")
        self.connection.commit()

    def begins(self, sql: str, *params: object) -> None:
        self.cursor.execute(sql, params)

    def change(self, kind: str, request_id: str) -> None:
        """As far as a move gets before its client is stopped: the type's lock, the queue, its entry."""
        locks.share(self.cursor, kind)
        self.begins("SELECT 1 FROM queues_queue WHERE type = %s FOR NO KEY UPDATE", kind)
        self.begins("UPDATE queues_entry SET updated_at = now() WHERE request_id = %s", request_id)

    def idle(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT state FROM pg_stat_activity WHERE pid = %s", [self.connection.get_backend_pid()]
            )
            return bool(cursor.fetchone() == ("idle in transaction",))


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    there = Frozen()
    yield there
    there.connection.close()


@pytest.fixture
def tenant(db: None) -> Tenant:
    return tenancy.create_tenant("first")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_patience", {})


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_an_entry_whose_row_is_held_is_passed_over_until_it_is_free(
    tenant: Tenant, frozen: Frozen, mode: str
) -> None:
    """Catches a look that waits for a row that a session of psql holds, and an entry that is forgotten."""
    TypePolicy.objects.create(type=KIND, mode=mode)
    pool("all", 4)
    for name in ("held", "a", "b"):
        entry(tenant, name, 2)
    frozen.begins("SELECT 1 FROM queues_entry WHERE request_id = 'held' FOR UPDATE")
    assert frozen.idle()
    assert look(KIND) == 2
    assert running() == ["a", "b"]
    assert look(KIND) == 0
    services.end(tenant.pk, KIND, "a")
    assert look(KIND) == 0
    assert frozen.idle(), "it held the row all the time"
    frozen.connection.rollback()
    assert look(KIND) == 1
    assert running() == ["b", "held"]
    assert Callback.objects.count() == 3


def test_a_head_whose_row_is_held_is_no_error_where_something_would_be_kept_for_it(
    tenant: Tenant, frozen: Frozen
) -> None:
    TypePolicy.objects.create(type=KIND, mode="best_effort")
    pool("all", 4)
    pool("small", 1)
    entry(tenant, "first", 3)
    entry(tenant, "head", 4)
    frozen.begins("SELECT 1 FROM queues_entry WHERE request_id = 'head' FOR UPDATE")
    assert look(KIND) == 1
    entry(tenant, "tiny", 1, host_aggregate="small")
    assert look(KIND) == 1
    assert Entry.objects.get(request_id="head").reserved == ""
    frozen.connection.rollback()
    assert look(KIND) == 0
    assert Entry.objects.get(request_id="head").reserved == "all"
    frozen.begins("SELECT 1 FROM queues_entry WHERE request_id = 'head' FOR UPDATE")
    entry(tenant, "before", 4)
    Entry.objects.filter(request_id="before").update(priority=-5)
    assert look(KIND) == 0
    assert Entry.objects.get(request_id="before").reserved == "all"


def test_a_frozen_client_holds_up_no_other_type(tenant: Tenant, frozen: Frozen, settings: Any) -> None:
    """Catches one client that stands still in its transaction and keeps every type from being looked at: the
    others are admitted before anybody waits for the one, and settling goes on, too."""
    for kind in ("aa", "zz"):
        pool("all", 4, kind=kind)
        for number in range(2):
            _entry_of(tenant, kind, f"{kind}-{number}")
    frozen.change("aa", "aa-0")
    waited: list[int] = []
    original = locks.alone

    def seen(cursor: Any, kind: str) -> None:
        waited.append(Entry.objects.filter(status="running", queue__type="zz").count())
        original(cursor, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "alone", seen)
        assert look_at_all() == 2
        assert look_at_all() == 0
    assert waited == [2, 2], "aa was waited for, when the others were done"
    assert looks._patience["aa"] == 4000, "the next look has more patience"
    assert frozen.idle()
    settings.GANTRY_QUEUE_UNTOLD_S = 0
    assert settle()["failed"] == 2
    frozen.connection.rollback()
    assert look_at_all() == 2
    assert "aa" not in looks._patience


@pytest.mark.parametrize("alone", [False, True], ids=["an entry", "the policy"])
def test_postgres_ends_a_client_that_stands_still(
    tenant: Tenant, frozen: Frozen, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """Catches a change that holds up its type for as long as its client pleases."""
    monkeypatch.setattr(locks, "IDLE_S", 1)
    pool("all", 4)
    for name in ("a", "b", "c"):
        entry(tenant, name, 1)
    if alone:
        locks.change_alone(frozen.cursor, KIND)
    else:
        frozen.change(KIND, "b")
    began = time.monotonic()
    admitted: list[int] = []

    def all_are_admitted() -> bool:
        admitted.append(look(KIND))
        return sum(admitted) == 3

    wait_until(all_are_admitted, why="the frozen client is ended")
    print(f"admitted {time.monotonic() - began:.1f} s after a client froze that was given 1 s")
    assert running() == ["a", "b", "c"]
    with pytest.raises(psycopg2.OperationalError):
        frozen.begins("SELECT 1")


def _entry_of(tenant: Tenant, kind: str, name: str) -> None:
    body = {"request_id": name, "owner_id": "x", "data": {"VCPU": 1}, "callback": f"urn:{name}"}
    services.create(tenant.pk, kind, wire.parse_entry(kind, body))
