"""What owners may hold, and whose turn it is between tenants."""

from __future__ import annotations

import pytest

from queues.admission.decide import Aggregate, Host, Level, decide
from tests.unit.queues.deciding import admitted, aggregate, cpus, gang, levels, seen, waiting

BOTH = pytest.mark.parametrize("strict", [True, False])


# --- quotas ---------------------------------------------------------------------------------------


def test_over_quota_in_strict_mode_stops_its_owner_only() -> None:
    """Catches: an owner whose small ones pass its own first one; an owner who stops others."""
    now = seen(
        waiting(1, cpus(4)), waiting(2, cpus(1)), waiting(3, cpus(4), owner="p"), there=(aggregate("a", 9),),
        strict=True, held={(1, "o"): {"cpu": 3}}, quotas={(1, "o"): {"cpu": 6}, (1, "p"): {"cpu": 4}},
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(3, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA, 2: Level.BEHIND}
    assert decision.verdicts[1001].resource == "cpu"
    assert decision.verdicts[1002].blocked_by == 1


def test_over_quota_in_best_effort_is_set_aside() -> None:
    """Catches: an aggregate kept for what its owner's quota holds back."""
    now = seen(
        waiting(1, cpus(4)), waiting(2, cpus(1), count=5), waiting(9, cpus(4), owner="p"),
        there=(aggregate("a", 9),), held={(1, "o"): {"cpu": 3}}, quotas={(1, "o"): {"cpu": 6}},
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(2, "a"), (3, "a"), (4, "a"), (9, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA, 2: Level.OVER_QUOTA}
    assert decision.reservation is None


@BOTH
def test_more_than_the_quota_itself_blocks_nobody(strict: bool) -> None:
    """Catches: an owner whose line stands still for ever behind what its quota can never hold."""
    now = seen(
        waiting(1, cpus(7)), waiting(2, cpus(1)), there=(aggregate("a", 9),), strict=strict,
        quotas={(1, "o"): {"cpu": 6}},
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(2, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA}


def test_more_than_the_quota_of_one_resource_blocks_nobody_either() -> None:
    """Catches: an owner stopped for ever, as its first one also waits for another resource."""
    big = {"cpu": 9, "mem": 9}
    now = seen(
        waiting(1, gang(1, cpu=4, mem=7)), waiting(2, cpus(1)), strict=True,
        there=(Aggregate("a", (Host(1, "h", big, big, big),)),),
        held={(1, "o"): {"cpu": 4}}, quotas={(1, "o"): {"cpu": 6, "mem": 6}},
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(2, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA}
    assert decision.verdicts[1001].resource == "mem"  # what has to change, cpu comes with time


def test_a_strict_head_whose_quota_is_used_up_behind_it_blocks_nobody() -> None:
    """Catches: others held back until the next look by what has to wait for its own quota."""
    there = (aggregate("a", 4, total=8), aggregate("b", 4, total=4))
    now = seen(
        waiting(1, cpus(8)), waiting(2, cpus(1), owner="p", bound="a"), waiting(3, cpus(4), bound="b"),
        there=there, strict=True, quotas={(1, "o"): {"cpu": 9}},
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(3, "b"), (2, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA}


def test_a_quota_used_up_later_in_the_same_decision_is_told() -> None:
    """Catches: an owner who is told to wait for others, when it holds as much as it may."""
    there = (aggregate("a", 2), aggregate("b", 2))
    now = seen(
        waiting(1, cpus(2), bound="b", owner="p"),
        waiting(2, cpus(2), bound="b"),
        waiting(3, cpus(2), bound="b", owner="q"),
        waiting(4, cpus(2), bound="a", owner="q"),
        there=there,
        quotas={(1, "q"): {"cpu": 2}},
    )
    decision = decide(now)
    assert admitted(decision) == [(1, "b"), (4, "a")]
    assert levels(decision) == {2: Level.NO_CAPACITY, 3: Level.OVER_QUOTA}


@BOTH
def test_a_quota_is_of_an_owner_of_one_tenant_and_of_named_resources(strict: bool) -> None:
    """Catches: an owner of the same name elsewhere held back; a resource without a quota read as 0."""
    there = (
        Aggregate("a", (Host(1, "h", {"cpu": 9, "gpu": 9}, {"cpu": 9, "gpu": 9}, {"cpu": 9, "gpu": 9}),)),
    )
    now = seen(
        waiting(1, gang(1, cpu=1, gpu=1)), waiting(2, cpus(1)), waiting(3, gang(1, gpu=1), tenant=2),
        there=there, strict=strict, quotas={(1, "o"): {"gpu": 0}},
    )  # fmt: skip
    assert admitted(decide(now)) == [(2, "a"), (3, "a")]
    assert levels(decide(now)) == {1: Level.OVER_QUOTA}


# --- tenants --------------------------------------------------------------------------------------


@BOTH
def test_a_pool_is_for_its_tenants(strict: bool) -> None:
    """Catches: somebody else's pool used, or blocked by who may not use it."""
    there = (aggregate("a", 4, total=8, tenants=frozenset({1})), aggregate("b", 4, tenants=frozenset({2, 3})))
    now = seen(
        waiting(1, cpus(8)), waiting(2, cpus(3), tenant=2), waiting(3, cpus(2), tenant=3), there=there,
        strict=strict,
    )  # fmt: skip
    decision = decide(now)
    assert admitted(decision) == [(2, "b")]
    assert levels(decision) == {1: Level.NO_CAPACITY, 3: Level.NO_CAPACITY}


@BOTH
def test_the_smaller_dominant_share_goes_first(strict: bool) -> None:
    """Catches: a Priority that passes another tenant; a share by one resource only, or by the sum."""
    there = (Aggregate("a", (Host(1, "h", {"cpu": 1, "mem": 99}, {"cpu": 10, "mem": 100}, {"cpu": 10}),)),)
    now = seen(
        waiting(1, cpus(1), tenant=1, priority=-(2**53)),
        waiting(2, cpus(1), tenant=2, priority=7),
        there=there,
        strict=strict,
        shares={1: {"cpu": 1, "mem": 60}, 2: {"cpu": 5, "mem": 5, "no such": 10**9}},
    )
    assert admitted(decide(now)) == [(2, "a")]


@BOTH
def test_shares_grow_as_entries_are_admitted(strict: bool) -> None:
    """Tenants take turns, from equal shares the one that waits longest; also with unequal sizes."""
    now = seen(
        waiting(10, cpus(1), tenant=1, since=5.0, count=9),
        waiting(20, cpus(2), tenant=2, since=1.0, count=9),
        waiting(30, cpus(1), tenant=3, since=9.0, count=9),
        there=(aggregate("a", 9),),
        strict=strict,
    )
    # 20 -> 0/2/0; 10; 30; then 1/2/1: 10 (since 6) before 30 (since 10); 2/2/1: 30; 2/2/2: 20; 2/4/2: 10.
    assert [entry for entry, _ in admitted(decide(now))] == [20, 10, 30, 11, 31, 21, 12]
