"""The decision, rule by rule, on examples that a person can follow. Entries are numbered in queue order."""

from __future__ import annotations

from typing import Any

import pytest

from queues.admission.decide import Aggregate, Head, Host, Level, Reservation, decide
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


# --- levels ---------------------------------------------------------------------------------------


@BOTH
def test_provider_trouble_admits_nothing_and_forgets_nothing(strict: bool) -> None:
    """Catches: an admission on what was known once; a reservation lost in an outage."""
    kept = Reservation(1, "a", 5.0)
    now = seen(
        waiting(1, cpus(1)), waiting(2, cpus(99), owner="p"), there=(aggregate("a", 9),), strict=strict,
        trouble="timed out", reservation=kept,
    )  # fmt: skip
    decision = decide(now)
    assert (decision.admitted, decision.more, decision.reservation) == ((), False, kept)
    assert levels(decision) == {1: Level.PROVIDER, 2: Level.PROVIDER}


@BOTH
def test_misconfigured_where_no_pool_can_ever_serve_it(strict: bool) -> None:
    """No aggregate at all, none of its tenant's, not the one it is bound to, none with such a resource."""
    there = (aggregate("a", 9, tenants=frozenset({2})), aggregate("b", 9))
    now = seen(
        waiting(1, cpus(1), bound="a"),
        waiting(2, cpus(1), bound="nowhere", owner="p"),
        waiting(3, gang(1, cpu=1, gpu=1), owner="q"),
        waiting(4, cpus(1), owner="r"),
        there=there,
        strict=strict,
    )
    decision = decide(now)
    assert levels(decision) == dict.fromkeys((1, 2, 3), Level.MISCONFIGURED)
    assert admitted(decision) == [(4, "b")]
    nothing = decide(seen(waiting(1, cpus(1)), there=(), strict=strict))
    assert levels(nothing) == {1: Level.MISCONFIGURED}


@BOTH
def test_what_never_fits_is_set_aside(strict: bool) -> None:
    """Catches: an impossible request that blocks everybody, by one instance, by the sum, by a gang's size."""
    now = seen(
        waiting(1, cpus(9)),
        waiting(2, gang(3, cpu=8), owner="p"),
        waiting(3, gang(1, cpu=1) + gang(2, cpu=8), owner="q"),
        waiting(4, cpus(8), owner="r"),
        there=(aggregate("a", 8, 8),),
        strict=strict,
    )
    decision = decide(now)
    assert levels(decision) == dict.fromkeys((1, 2, 3), Level.NEVER_FITS)
    assert admitted(decision) == [(4, "a")]
    assert decision.reservation is None


def test_never_is_judged_by_the_largest_there_ever_was() -> None:
    """Catches: a request set aside because a host is smaller today; in strict mode it blocks."""
    there = (Aggregate("a", (host(1, 4, 4, largest=16),)),)
    strict = decide(seen(waiting(1, cpus(16)), waiting(2, cpus(1), owner="p"), there=there, strict=True))
    assert levels(strict) == {1: Level.NO_CAPACITY, 2: Level.BEHIND}
    never = decide(seen(waiting(1, cpus(17)), waiting(2, cpus(1), owner="p"), there=there, strict=True))
    assert (levels(never), admitted(never)) == ({1: Level.NEVER_FITS}, [(2, "a")])


def test_best_effort_keeps_nothing_where_the_wait_has_no_bound() -> None:
    """Catches: an aggregate closed for ever for a request that fits only on what its hosts once were."""
    shrunk = Aggregate("a", (host(1, 4, 4, largest=16),))
    large, small = waiting(1, cpus(16)), waiting(2, cpus(1), owner="p", count=2)
    decision = decide(seen(large, small, there=(shrunk,)))
    assert levels(decision) == {1: Level.NO_CAPACITY}
    assert admitted(decision) == [(2, "a"), (3, "a")]
    assert decision.reservation is None
    # Nor does it keep what it was given before the host shrank, and another one's bound is not spent on it.
    next_ = waiting(4, cpus(4), owner="q")
    now = seen(large, next_, there=(Aggregate("a", (host(1, 2, 4, largest=16),)),))
    assert decide(apply(now, decide(now), reservation=Reservation(1, "a"))).reservation == Reservation(4, "a")


def test_levels_of_capacity() -> None:
    """No capacity: nobody is in its way. Behind: it would fit, and names who it waits for. Or both closed."""
    there = (aggregate("a", 4, total=8),)
    now = seen(
        waiting(1, cpus(6)), waiting(2, cpus(3), owner="p"), waiting(3, cpus(7), owner="q"), there=there,
        strict=True,
    )  # fmt: skip
    decision = decide(now)
    assert levels(decision) == {1: Level.NO_CAPACITY, 2: Level.BEHIND, 3: Level.BEHIND}
    assert {verdict.blocked_by for verdict in decision.verdicts.values()} == {None, 1}
    assert decision.verdicts[1002].candidates == ("a",)


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


# --- best effort ----------------------------------------------------------------------------------


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
