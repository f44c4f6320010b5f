"""Why an entry waits, as the decision says it."""

from __future__ import annotations

import pytest

from queues.admission.decide import Aggregate, Level, Reservation, decide
from tests.unit.queues.deciding import admitted, aggregate, apply, cpus, gang, host, levels, seen, waiting

BOTH = pytest.mark.parametrize("strict", [True, False])


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
