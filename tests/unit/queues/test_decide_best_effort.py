"""Best effort: smaller ones pass, and an aggregate is kept for the first that waits."""

from __future__ import annotations

from typing import Any

import pytest

from queues.admission.decide import Level, Reservation, decide
from tests.unit.queues.deciding import admitted, aggregate, apply, cpus, gang, levels, seen, waiting

BOTH = pytest.mark.parametrize("strict", [True, False])


def test_smaller_ones_pass_but_not_into_what_is_kept() -> None:
    """Catches: a head that is passed for ever; a head that keeps more than one aggregate."""
    there = (aggregate("a", 2, total=8), aggregate("b", 5, total=8))
    now = seen(waiting(1, cpus(8)), waiting(2, cpus(1), owner="p", count=9), there=there)
    decision = decide(now)
    assert admitted(decision) == [(2, "a"), (3, "a")]
    assert decision.reservation == Reservation(1, "b")
    assert levels(decision) == {1: Level.NO_CAPACITY, 2: Level.BEHIND}
    assert decision.verdicts[1002].blocked_by == 1


def test_the_aggregate_that_lacks_least_is_kept() -> None:
    """By instances without a host first, then by the amount that is missing, never one it cannot use."""
    there = (aggregate("a", 3, 3, 0, total=4), aggregate("b", 4, 3, 3, total=4), aggregate("c", 9, total=9))
    assert decide(seen(waiting(1, gang(3, cpu=4)), there=there)).reservation == Reservation(1, "b")
    there = (aggregate("a", 1, 1, total=4), aggregate("b", 2, 1, total=4), aggregate("c", 0, 0, total=4))
    assert decide(seen(waiting(1, gang(2, cpu=4)), there=there)).reservation == Reservation(1, "b")
    assert decide(seen(waiting(1, cpus(4), bound="c"), there=there)).reservation == Reservation(1, "c")


def test_only_the_first_that_waits_keeps_something() -> None:
    """Catches: a second reservation, with which best effort would become strict."""
    there = (aggregate("a", 2, total=8), aggregate("b", 2, total=8))
    now = seen(
        waiting(1, cpus(8)), waiting(2, cpus(8), owner="p"), waiting(3, cpus(1), owner="q"), there=there
    )
    decision = decide(now)
    assert decision.reservation == Reservation(1, "a")
    assert admitted(decision) == [(3, "b")]
    assert levels(decision) == {1: Level.NO_CAPACITY, 2: Level.NO_CAPACITY}


def test_a_reservation_stays_where_it_is() -> None:
    """Catches: one that moves to whatever lacks least now, so that its wait begins anew for ever."""
    first, small = waiting(1, cpus(8)), waiting(2, cpus(3), owner="p")
    kept = Reservation(1, "a", 77.0)
    now = seen(first, small, there=(aggregate("a", 4, total=8), aggregate("b", 7, total=8)), reservation=kept)
    decision = decide(now)
    assert decision.reservation == kept
    assert admitted(decision) == [(2, "b")]
    # Also where another tenant has a smaller share and waits too.
    other = waiting(3, cpus(8), tenant=2)
    now = seen(
        first, other, there=(aggregate("a", 4, total=8), aggregate("b", 7, total=8)), reservation=kept,
        shares={1: {"cpu": 5}},
    )  # fmt: skip
    assert decide(now).reservation == kept


@pytest.mark.parametrize(
    ("front", "stays"),
    [
        (waiting(1, cpus(7), owner="p"), False),  # another one of its tenant stands before it now
        (waiting(1, cpus(99), owner="p"), True),  # that one never fits
        (waiting(1, cpus(5), owner="full"), True),  # that one waits for its own quota
        (waiting(1, cpus(7), owner="p", tenant=2), True),  # another tenant's number says nothing
    ],
)
def test_a_reservation_is_for_the_first_of_its_tenant_that_can_go(front: Any, stays: bool) -> None:
    """Catches: an entry moved away that goes on blocking; one that loses its place to what cannot go."""
    kept = Reservation(2, "a", 77.0)
    now = seen(
        front, waiting(2, cpus(8)), there=(aggregate("a", 4, total=8), aggregate("b", 6, total=8)),
        reservation=kept, quotas={(1, "full"): {"cpu": 6}}, held={(1, "full"): {"cpu": 2}},
    )  # fmt: skip
    assert decide(now).reservation == (kept if stays else Reservation(1, "b"))


def test_a_reservation_goes_when_its_entry_or_its_aggregate_goes() -> None:
    """Catches: an aggregate kept for an entry that was withdrawn, or one that its tenant may not use now."""
    small = waiting(2, cpus(1), owner="p")
    kept = Reservation(1, "a")
    assert admitted(decide(seen(small, there=(aggregate("a", 4),), reservation=kept))) == [(2, "a")]
    for there in (
        (aggregate("b", 4, total=8),),
        (aggregate("a", 4, total=8, tenants=frozenset({9})), aggregate("b", 4, total=8)),
    ):
        now = seen(waiting(1, cpus(8)), there=there, reservation=kept)
        assert decide(now).reservation == Reservation(1, "b")


def test_what_was_kept_is_free_again_once_its_entry_goes_elsewhere() -> None:
    """Catches: one that was turned away before it in the same decision and waits for a look that never comes.

    The other tenant has the smaller share: it is looked at first.
    """
    now = seen(
        waiting(1, cpus(8)),
        waiting(2, cpus(4), tenant=2, bound="a"),
        there=(aggregate("a", 4, total=8), aggregate("b", 8)),
        reservation=Reservation(1, "a"),
        shares={1: {"cpu": 8}},
    )
    decision = decide(now)
    assert admitted(decision) == [(1, "b"), (2, "a")]
    assert (decision.reservation, decision.verdicts, decision.more) == (None, {}, False)


def test_the_next_reservation_is_for_the_first_that_waits() -> None:
    """Catches: the one that happens to be looked at after the reserved entry, instead of the first."""
    there = (aggregate("a", 8, total=8), aggregate("b", 1, total=8))
    now = seen(
        waiting(1, cpus(7), tenant=2),
        waiting(2, cpus(8)),
        waiting(3, cpus(8), owner="p"),
        there=there,
        reservation=Reservation(2, "a"),
        shares={1: {"cpu": 8}},
    )
    decision = decide(now)
    assert admitted(decision) == [(2, "a")]
    assert decision.reservation is not None
    assert decision.reservation.entry == 1


def test_the_quota_of_a_reserved_entry_is_kept_too() -> None:
    """Catches: its owner's own small ones behind it use up the quota, and the reservation is lost."""
    there = (aggregate("a", 5, total=8), aggregate("b", 3, total=8))
    quotas = {(1, "o"): {"cpu": 8}}
    now = seen(
        waiting(1, cpus(6)), waiting(2, cpus(3)), waiting(3, cpus(2)), waiting(4, cpus(1), owner="p"),
        there=there, quotas=quotas,
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(3, "b"), (4, "b")]
    assert decision.reservation == Reservation(1, "a")
    assert levels(decision) == {1: Level.NO_CAPACITY, 2: Level.BEHIND}
    assert decision.verdicts[1002].blocked_by == 1
    again = decide(apply(now, decision))
    assert again.reservation == Reservation(1, "a")
