"""The decision, rule by rule, on examples that a person can follow. Entries are numbered in queue order."""

from __future__ import annotations

from typing import Any

import pytest

from queues.admission.decide import Aggregate, Head, Level, Reservation, decide
from tests.unit.queues.deciding import admitted, aggregate, apply, cpus, gang, host, levels, seen, waiting

BOTH = pytest.mark.parametrize("strict", [True, False])


# --- what is admitted, and where ------------------------------------------------------------------


@BOTH
def test_what_fits_is_admitted_in_order(strict: bool) -> None:
    """Catches: an order by class or by id; a later entry of a class before an earlier one of another."""
    now = seen(
        waiting(30, cpus(1), priority=5, count=2),
        waiting(10, cpus(2), priority=4),
        waiting(20, cpus(1), owner="p", priority=-7),
        there=(aggregate("a", 9),),
        strict=strict,
    )
    decision = decide(now)
    assert admitted(decision) == [(20, "a"), (10, "a"), (30, "a"), (31, "a")]
    assert not decision.verdicts
    assert not decision.more


def test_equal_priorities_are_ordered_by_the_hidden_key() -> None:
    """Catches: ties by class id, which nobody can move."""
    late, early = waiting(1, cpus(1), priority=3), waiting(2, gang(1, cpu=1), owner="p", priority=3)
    early = _with_tie(early, "A")
    assert admitted(decide(seen(late, early, there=(aggregate("a", 1),)))) == [(2, "a")]


def _with_tie(cls: Any, tie: str) -> Any:
    return type(cls)(
        cls.id, cls.queue, cls.tenant, cls.owner, cls.need, cls.bound,
        tuple(Head(head.id, head.priority, tie, head.since) for head in cls.heads), cls.count,
    )  # fmt: skip


@BOTH
def test_a_gang_goes_whole_to_one_aggregate(strict: bool) -> None:
    """Catches: instances over two aggregates, a part of a gang admitted."""
    there = (aggregate("a", 2, 2, total=8), aggregate("b", 2, 2, 2, total=8))
    decision = decide(seen(waiting(1, gang(3, cpu=2)), there=there, strict=strict))
    assert admitted(decision) == [(1, "b")]
    assert sorted(decision.admitted[0].places) == [
        (9800, 1, (("cpu", 2),)),
        (9801, 1, (("cpu", 2),)),
        (9802, 1, (("cpu", 2),)),
    ]
    assert not admitted(decide(seen(waiting(1, gang(6, cpu=2)), there=there, strict=strict)))


def test_the_fullest_aggregate_that_suffices_is_taken() -> None:
    """Catches: a large free piece broken into for what a small one holds."""
    there = (aggregate("a", 8), aggregate("b", 3, total=8), aggregate("c", 1, total=8))
    assert admitted(decide(seen(waiting(1, cpus(2)), there=there))) == [(1, "b")]


@BOTH
def test_nothing_goes_to_a_host_that_shrank_below_what_is_used(strict: bool) -> None:
    """Catches: a negative rest that another host's free amount pays for."""
    there = (Aggregate("a", (host(1, -4, 4), host(2, 3, 4))),)
    decision = decide(seen(waiting(1, cpus(1), count=9), there=there, strict=strict))
    assert [each.places for each in decision.admitted] == [((2, 1, (("cpu", 1),)),)] * 3


def test_the_same_snapshot_gives_the_same_decision_whatever_the_order_of_its_parts() -> None:
    """Catches: a decision that hangs on the order in which rows were read, or changes what it was given."""
    classes = [
        waiting(10 * number, cpus(1 + number % 3), tenant=1 + number % 2, owner=f"o{number}", count=4)
        for number in range(1, 8)
    ]
    there = [aggregate("a", 3, 3), aggregate("b", 6, total=9), aggregate("c", 2, total=9)]
    one = seen(*classes, there=tuple(there))
    other = seen(*classes[::-1], there=tuple(there[::-1]))
    first = decide(one)
    assert first == decide(one)
    assert admitted(first) == admitted(decide(other))
    assert (first.verdicts, first.reservation) == (decide(other).verdicts, decide(other).reservation)


# --- strict ---------------------------------------------------------------------------------------


def test_a_strict_head_blocks_where_it_could_go() -> None:
    """Catches: a small one that passes; and one bound elsewhere that does not go on."""
    there = (aggregate("a", 4, total=8), aggregate("b", 4, total=4))
    now = seen(
        waiting(1, cpus(8)),
        waiting(2, cpus(1), owner="p", bound="a"),
        waiting(3, cpus(1), owner="q", bound="b"),
        waiting(4, cpus(1), owner="r"),
        there=there,
        strict=True,
    )
    decision = decide(now)
    assert admitted(decision) == [(3, "b"), (4, "b")]
    assert levels(decision) == {1: Level.NO_CAPACITY, 2: Level.BEHIND}
    assert decision.verdicts[1002].blocked_by == 1
    assert decision.reservation is None


def test_the_second_in_line_blocks_too() -> None:
    """Catches: only the head blocks, so that the second is passed for ever where the head could not go."""
    there = (aggregate("a", 4, total=8), aggregate("b", 2, total=4))
    now = seen(
        waiting(1, cpus(8)), waiting(2, cpus(4), owner="p"), waiting(3, cpus(1), owner="q"), there=there,
        strict=True,
    )  # fmt: skip
    decision = decide(now)
    assert not decision.admitted
    assert {key: each.blocked_by for key, each in decision.verdicts.items()} == {1001: None, 1002: 1, 1003: 1}


def test_a_strict_type_has_no_reservation() -> None:
    """Catches: one left over from the other mode that goes on keeping an aggregate."""
    now = seen(
        waiting(1, cpus(8), owner="p"), there=(aggregate("a", 4, total=8),), strict=True,
        reservation=Reservation(1, "a"),
    )  # fmt: skip
    assert decide(now).reservation is None


def test_a_strict_head_blocks_until_another_tenant_has_the_smaller_share() -> None:
    """Catches: a tenant blocked until the next look by what is not the head any more."""
    there = (aggregate("a", 4, total=8), aggregate("b", 4, total=4))
    now = seen(
        waiting(1, cpus(8)),
        waiting(2, cpus(4), bound="b", owner="p"),
        waiting(3, cpus(4), tenant=2, bound="a"),
        there=there,
        strict=True,
        shares={2: {"cpu": 1}},
    )
    decision = decide(now)
    # The first tenant's 2 goes past its own 1; then it holds more than the second, whose turn it is.
    assert admitted(decision) == [(2, "b"), (3, "a")]
    assert levels(decision) == {1: Level.NO_CAPACITY}


# --- more -----------------------------------------------------------------------------------------


def test_more_when_the_limit_is_reached() -> None:
    """Catches: a look that stops after its limit and sleeps while there is room."""
    now = seen(waiting(1, cpus(1), count=5), there=(aggregate("a", 4),))
    decision = decide(now, most=3)
    assert admitted(decision) == [(1, "a"), (2, "a"), (3, "a")]
    assert decision.more
    assert levels(decision) == {1: Level.EVALUATING}
    last = decide(apply(now, decision), most=3)
    assert (admitted(last), last.more, levels(last)) == ([(4, "a")], False, {1: Level.NO_CAPACITY})
    assert not decide(seen(waiting(1, cpus(1), count=3), there=(aggregate("a", 9),)), most=3).more


@BOTH
def test_more_when_the_known_entries_of_a_class_run_out(strict: bool) -> None:
    """Catches: another class let past those that were not read; one read to its end that says more."""
    known = waiting(1, cpus(1), count=5, known=2)
    behind = waiting(9, cpus(1), owner="p")
    now = seen(known, behind, there=(aggregate("a", 9),), strict=strict)
    decision = decide(now)
    assert admitted(decision) == [(1, "a"), (2, "a")]
    assert decision.more
    assert levels(decision) == {1: Level.EVALUATING, 9: Level.EVALUATING}
    whole = decide(seen(waiting(1, cpus(1), count=2), behind, there=(aggregate("a", 9),), strict=strict))
    assert admitted(whole) == [(1, "a"), (2, "a"), (9, "a")]
    assert not whole.more


def test_a_reservation_outlives_a_decision_that_ends_early() -> None:
    """Catches: one forgotten because its entry was not looked at; one kept for an entry that is admitted."""
    kept = Reservation(1, "a", 3.0)
    now = seen(
        waiting(1, cpus(8)), waiting(2, cpus(1), tenant=2, count=4, known=1),
        there=(aggregate("a", 4, total=8), aggregate("b", 4, total=8)), reservation=kept,
        shares={1: {"cpu": 8}},
    )  # fmt: skip
    decision = decide(now)
    assert (admitted(decision), decision.more, decision.reservation) == ([(2, "b")], True, kept)
    now = seen(
        waiting(1, cpus(8), count=4, known=1), there=(aggregate("a", 8), aggregate("b", 4, total=8)),
        reservation=kept,
    )  # fmt: skip
    decision = decide(now)
    assert (admitted(decision), decision.more, decision.reservation) == ([(1, "a")], True, None)
