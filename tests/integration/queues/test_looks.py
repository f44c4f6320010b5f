"""Looks: what is admitted, booked, told and given back, on a real database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from queues.admission import booking
from queues.admission.look import look
from queues.admission.settle import settle
from queues.admission.terms import Admission, Class
from queues.models import Booking, Entry, HostResource, OwnerHolding, WaitingClass
from tests.integration.queues.scene import KIND, entry, pool, running
from workers.models import Callback, Tenant
from workers.tenants import tenancy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant(db: None) -> Tenant:
    return tenancy.create_tenant("first")


def test_what_fits_is_admitted_booked_and_told_in_one_commit(tenant: Tenant) -> None:
    """Catches an admission without its callback or booking, and one that tells a wrong aggregate."""
    pool("small", 2, 2)
    pool("large", 4, 4)
    first = entry(tenant, "a", 3, 3)
    entry(tenant, "b", 1)
    assert look(KIND) == 2
    assert running() == ["a", "b"]
    made = Entry.objects.get(pk=first)
    assert (made.aggregate, json.loads(made.data)["host_aggregate"]) == ("large", "large")
    (told,) = Callback.objects.filter(owner_kind="entry", owner_id=str(first))
    assert json.loads(told.body) == {
        "request_id": "a",
        "type": "vm",
        "owner_id": "x",
        "status": "running",
        "data": {"instances": [{"VCPU": 3}, {"VCPU": 3}], "host_aggregate": "large"},
        "sequence": 1,
    }
    held = dict(HostResource.objects.values_list("host__name", "held"))
    assert held == {"small-0": 0, "small-1": 0, "large-0": 4000, "large-1": 3000}, "the fuller ones first"
    assert OwnerHolding.objects.get().held == 7000
    assert look(KIND) == 0


def test_thirty_two_of_three_hundred(tenant: Tenant) -> None:
    """Catches a booking beyond the capacity, and a look that stops at its first round."""
    pool("all", 32, 32)
    for number in range(300):
        entry(tenant, f"r{number}", 2)
    assert look(KIND) == 32
    assert running() == [f"r{number}" for number in range(32)]
    assert WaitingClass.objects.get().waiting == 268
    dead = Entry.objects.filter(status="running").first()
    assert dead is not None
    Callback.objects.filter(owner_id=str(dead.pk)).update(state="dead", next_at=None)
    assert settle()["failed"] == 1
    assert settle()["failed"] == 0
    dead.refresh_from_db()
    assert (dead.status, dead.message) == ("failed", "its callback was given up: it was never accepted")
    assert look(KIND) == 1
    assert sum(HostResource.objects.values_list("held", flat=True)) == 64_000
    assert OwnerHolding.objects.get().held == 64_000


def test_a_booking_beyond_what_is_free_is_refused_by_the_database(tenant: Tenant) -> None:
    """Catches overbooking where the snapshot was older than the truth: nothing of it may be kept."""
    pool("all", 4)
    entry(tenant, "a", 3)
    assert look(KIND) == 1
    taken, host = Booking.objects.get(), HostResource.objects.get()
    size = (("VCPU", 3000),)
    cls = Class(1, taken.entry.queue_id, tenant.pk, "x", ((1, size),), "", (), 1)
    again = [Admission(taken.entry_id, cls, "all", ((host.host_id, 1, size),))]

    def shrink_and_book() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            Booking.objects.all().delete()
            cursor.execute("UPDATE queues_hostresource SET total = 2000")
            booking.take(cursor, again)

    with pytest.raises(IntegrityError):
        shrink_and_book()
    assert Booking.objects.count() == 1


def test_what_never_fits_is_set_aside_and_comes_back(tenant: Tenant) -> None:
    """Catches a request larger than everything that blocks those behind it, or is forgotten when capacity
    grows."""
    pool("all", 4)
    entry(tenant, "huge", 8)
    entry(tenant, "small", 1)
    assert look(KIND) == 1
    assert running() == ["small"]
    assert WaitingClass.objects.filter(aside=True).count() == 1
    pool("all", 4, 8)
    assert look(KIND) == 1
    assert running() == ["small", "huge"]


def test_an_unreachable_callback_has_its_time_then_the_capacity_comes_back(
    tenant: Tenant, settings: Any
) -> None:
    pool("all", 4)
    entry(tenant, "abc", 4, callback="abc")
    assert look(KIND) == 1
    assert Callback.objects.count() == 0
    assert settle() == {"told": 0, "failed": 0}
    settings.GANTRY_QUEUE_UNTOLD_S = 0
    assert settle()["failed"] == 1
    assert HostResource.objects.get().held == 0
