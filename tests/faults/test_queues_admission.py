"""Admission by two workers while Postgres stops at once and restarts, and one worker is killed."""

from __future__ import annotations

from queues.entries import services
from queues.models import Entry, HostResource
from tests.integration.queues.scene import at_once, entry, pool
from tests.support.cluster import Cluster
from tests.support.fixtures import Account
from tests.support.outages import patiently, postgres_down
from tests.support.waiting import wait_until
from workers.models import Callback, Tenant
from workers.vocabulary.errors import Conflict

CLIENTS, EACH = 4, 30


def test_two_workers_admit_each_once_although_postgres_restarts(cluster: Cluster, account: Account) -> None:
    """Catches an entry that is admitted or told of twice, capacity that stays taken, a worker that looks no
    more."""
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "120", "GANTRY_QUEUE_LOOK_S": "0.5"}
    tenant = Tenant.objects.get(pk=account.tenant_id)
    first, second = cluster.node("n1"), cluster.node("n2")
    pool("all", 32, 32)

    def work(number: int) -> None:
        if number == CLIENTS:
            wait_until(lambda: Entry.objects.count() >= 20, why="clients are under way")
            with postgres_down():
                pass
            return
        for index in range(EACH):
            wait_until(patiently(lambda: _submitted(tenant, f"{number}-{index}")), why="it is submitted")  # noqa: B023

    at_once(CLIENTS + 1, work)
    wait_until(patiently(lambda: Entry.objects.filter(status="running").count() == 32), why="32 run")
    assert Entry.objects.count() == CLIENTS * EACH
    assert first.alive, first.tail()
    assert second.alive, second.tail()
    _assert_booked(64_000)
    first.kill()
    for each in Entry.objects.filter(status="running").order_by("id")[:10]:
        services.end(account.tenant_id, "vm", each.request_id)
    wait_until(lambda: Entry.objects.filter(status="running").count() == 32, why="ten more run")
    _assert_booked(64_000)
    admitted = Entry.objects.exclude(admitted_at=None)
    owed = Callback.objects.filter(owner_kind="entry").values_list("owner_id", flat=True)
    assert sorted(owed) == sorted(str(each.pk) for each in admitted)
    assert len(owed) == 42


def _submitted(tenant: Tenant, name: str) -> bool:
    """Submit again until it is there: of a commit whose answer was lost the id is taken."""
    try:
        entry(tenant, name, 2)
    except Conflict:
        assert Entry.objects.filter(request_id=name).exists()
    return True


def _assert_booked(amount: int) -> None:
    held = 0
    for each in HostResource.objects.all():
        assert each.held == sum(each.bookings.values_list("amount", flat=True)) <= each.total
        held += each.held
    assert held == amount
