"""More classes of waiting entries than one decision is made of: looks go through all of them."""

from __future__ import annotations

import pytest

from queues.admission import look as looking
from queues.admission import snapshot
from queues.admission.look import look
from queues.entries import services
from queues.models import Entry, TypePolicy, WaitingClass
from tests.integration.queues.scene import KIND, entry, pool, running
from workers.models import Tenant
from workers.tenants import tenancy

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant(db: None, monkeypatch: pytest.MonkeyPatch) -> Tenant:
    """Two hosts of 8 in an aggregate each; a 4 runs on each. Looks begin at their first window."""
    monkeypatch.setattr(looking, "_windows", {})
    tenant = tenancy.create_tenant("first")
    TypePolicy.objects.create(type=KIND, mode="best_effort")
    for name in ("a", "b"):
        pool(name, 8)
        entry(tenant, f"first-{name}", 4, host_aggregate=name)
    assert look(KIND) == 2
    return tenant


def _too_large(tenant: Tenant, count: int) -> int:
    """So many classes of one entry of 5; the id of the first."""
    return min(entry(tenant, f"large-{number}", 5, owner=f"o{number}") for number in range(count))


def test_what_fits_behind_more_classes_than_a_look_has_is_admitted(tenant: Tenant) -> None:
    """Catches: one that fits, for ever behind 200 classes that do not; one that takes what is kept."""
    head = _too_large(tenant, snapshot.CLASSES + 30)
    entry(tenant, "small", 1)
    entry(tenant, "into-what-is-kept", 1, owner="y", host_aggregate="a")
    assert look(KIND) == 1
    assert running() == ["first-a", "first-b", "small"]
    kept = Entry.objects.exclude(reserved="").get()
    assert (kept.pk, kept.reserved) == (head, "a")
    assert look(KIND) == 0
    services.end(tenant.pk, KIND, "first-a")
    assert look(KIND) == 1
    assert running()[-1] == "large-0", "what was kept was kept for the first"


def test_in_strict_order_nobody_passes_however_many_wait(tenant: Tenant) -> None:
    """Catches: a further window in which those that block are not there."""
    TypePolicy.objects.update(mode="strict")
    _too_large(tenant, snapshot.CLASSES)
    entry(tenant, "small", 1)
    assert [look(KIND) for _ in range(3)] == [0, 0, 0]


def test_every_window_has_its_turn(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a window never looked at, also where those end of which the first entries are compared."""
    monkeypatch.setattr(snapshot, "CLASSES", 4)
    monkeypatch.setattr(snapshot, "_WINDOWS", 2)
    monkeypatch.setattr(snapshot, "_LIVE", 8)
    for number in range(28):
        fits = number > 4 and number % 6 == 0
        entry(tenant, f"n{number}", 1 if fits else 5, owner=f"o{number}")
    looks = 0
    while Entry.objects.filter(request_id__in=["n6", "n12", "n18", "n24"], status="queued").exists():
        look(KIND)
        looks += 1
        assert looks <= 8, running()
    assert sorted(running()) == ["first-a", "first-b", "n12", "n18", "n24", "n6"]
    entry(tenant, "late", 1, owner="late")  # nothing is free in b any more: it goes back to the first windows
    assert sum(look(KIND) for _ in range(10)) == 0
    services.end(tenant.pk, KIND, "n6")
    assert sum(look(KIND) for _ in range(8)) == 1
    assert running()[-1] == "late"


def test_an_aggregate_is_kept_for_one_behind_those_whose_quota_is_used_up(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches: a reservation lost and made anew at each look, since its entry is not in the first window."""
    monkeypatch.setattr(snapshot, "CLASSES", 3)
    _too_large(tenant, 6)
    waiting = WaitingClass.objects.filter(owner_id__in=["o0", "o1", "o2", "o3"])
    for each in waiting:
        each.queue.ownerholding_set.create(owner_id=each.owner_id, resource="VCPU", quota=1000)
    look(KIND)
    kept = Entry.objects.exclude(reserved="").get()
    assert (kept.request_id, kept.reserved) == ("large-4", "a")
    since = kept.reserved_at
    for _ in range(4):
        look(KIND)
        kept = Entry.objects.exclude(reserved="").get()
        assert (kept.request_id, kept.reserved_at) == ("large-4", since)
