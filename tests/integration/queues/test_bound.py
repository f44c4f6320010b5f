"""Best effort: the largest starts within the bound that explain showed beforehand, whatever else comes."""

from __future__ import annotations

import math
from typing import Any, Final

import pytest
from django.db import connection

from queues.admission.look import look
from queues.entries import services
from queues.entries.explain import explain
from queues.models import Entry, TypePolicy
from tests.integration.queues.scene import KIND, entry, pool
from tests.support import seeds
from workers.models import Tenant
from workers.tenants import tenancy

pytestmark = pytest.mark.django_db(transaction=True)

LOOK_S: Final = 2.0


@pytest.fixture
def tenant(db: None) -> Tenant:
    return tenancy.create_tenant("first")


class _Time:
    """Virtual: what waits and runs becomes older. ``now`` is how much; the machine's own clock adds to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def passes(self, seconds: float) -> None:
        self.now += seconds
        with connection.cursor() as cursor:
            cursor.execute(
                """UPDATE queues_entry SET admitted_at = admitted_at - %(s)s * interval '1 second',
                       created_at = created_at - %(s)s * interval '1 second'
                   WHERE status IN ('queued', 'running')""",
                {"s": seconds},
            )


class _Stream:
    """Small ones of two tenants without an end; each declares a duration, and most use all of it."""

    def __init__(self, time: _Time, *tenants: Tenant) -> None:
        self.time, self.tenants = time, tenants
        self.dice = seeds.dice("queues bound")
        self.submitted = 0

    def fill(self) -> None:
        while Entry.objects.filter(status="queued", request_id__startswith="s-").count() < 6:
            self.submitted += 1
            tenant, vcpus = self.dice.choice(self.tenants), self.dice.choice((1, 2))
            seconds = self.dice.randrange(600, 6000)
            entry(tenant, f"s-{self.submitted}", vcpus, owner=self.dice.choice("xy"), duration=seconds)

    def until_the_next_end(self) -> None:
        """Whoever is the first to reach its duration ends, just then; one in four ends early."""
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT greatest(0, (e.data::json->>'duration')::float8
                       - extract(epoch FROM clock_timestamp() - e.admitted_at)), q.tenant_id, e.request_id
                   FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
                   WHERE e.status = 'running' ORDER BY 1"""
            )
            rows = cursor.fetchall()
        left, tenant, request_id = rows[0]
        if self.dice.randrange(4) == 0:
            left, (_, tenant, request_id) = left * self.dice.random(), self.dice.choice(rows)
        self.time.passes(float(left))
        services.end(tenant, KIND, request_id)
        self.fill()
        look(KIND)


@pytest.mark.parametrize("instances", [(4, 4), (4,), (4, 3, 1)])
def test_the_largest_starts_within_its_bound(
    tenant: Tenant, settings: Any, instances: tuple[float, ...]
) -> None:
    """Catches a bound that is none: of the wrong aggregate, of the first end, or one that others undo."""
    settings.GANTRY_QUEUE_LOOK_S = LOOK_S
    TypePolicy.objects.create(type=KIND, mode="best_effort")
    for name in ("a", "b"):
        pool(name, 4, 4)
    stream = _Stream(_Time(), tenant, tenancy.create_tenant("second"))
    stream.fill()
    while look(KIND):
        stream.fill()
    for number in range(4):
        before = stream.submitted
        latest, aggregate = _until_it_starts(tenant, stream, f"largest-{number}", *instances)
        largest = Entry.objects.get(request_id=f"largest-{number}")
        assert largest.aggregate == aggregate
        assert stream.time.now <= latest
        assert stream.submitted > before, "small ones came all the time"
        services.end(tenant.pk, KIND, largest.request_id)


def _until_it_starts(tenant: Tenant, stream: _Stream, name: str, *instances: float) -> tuple[float, str]:
    """When it starts at the latest, and where, as it was told before it did."""
    entry(tenant, name, *instances, owner="z")
    look(KIND)
    latest, aggregate = 0.0, ""
    for _ in range(400):
        if Entry.objects.get(request_id=name).status == "running":
            break
        told = explain(tenant.pk, KIND, name)
        bound = told["bound"] or {}
        if "bound_s" in bound:
            until = stream.time.now + bound["bound_s"]
            assert not latest or until <= latest + 0.2, "it only comes nearer"
            latest, aggregate = latest or until, bound["aggregate"]
            assert f"within {math.ceil(bound['bound_s'])} s" in told["reasons"][0]["message"]
            assert told["estimate"].get("p90_s", 0) <= bound["bound_s"]
        stream.until_the_next_end()
    else:
        raise AssertionError("it never started")
    assert aggregate, "it was shown beforehand"
    return latest, aggregate


def test_only_the_head_has_a_bound_and_what_is_not_known_is_said(tenant: Tenant) -> None:
    TypePolicy.objects.create(type=KIND, mode="best_effort")
    pool("a", 4)
    entry(tenant, "runs", 4)
    assert look(KIND) == 1
    entry(tenant, "head", 4)
    entry(tenant, "next", 4)
    assert look(KIND) == 0
    told = explain(tenant.pk, KIND, "head")
    assert told["bound"] == {
        "aggregate": "a",
        "unknown": "because 1 of 1 that run there declare no duration in their data",
    }
    assert "By when it starts at the latest is unknown" in told["reasons"][0]["message"]
    assert explain(tenant.pk, KIND, "next")["bound"] is None
    TypePolicy.objects.update(mode="strict")
    assert explain(tenant.pk, KIND, "head")["bound"] is None
