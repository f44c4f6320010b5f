"""What a decision does not know: whether a request fits at all, and who waits beyond its classes."""

from __future__ import annotations

import pytest

from queues.admission import packing
from queues.admission.asked import ask
from queues.admission.decide import Aggregate, Host, Level, Reservation, Snapshot, decide
from queues.admission.reasons import reason
from queues.admission.search import ESTIMATED, LEAST_STEPS, STEPS, Found
from queues.estimates.estimate import Unknown, estimate
from queues.estimates.forward import Scene, forecast
from queues.estimates.runtimes import RunTimes
from queues.needs import Need
from tests.unit.queues.deciding import admitted, aggregate, cpus, levels, seen, unknown_fit, waiting

BOTH = pytest.mark.parametrize("strict", [True, False])
NEED, HOSTS = unknown_fit()


def _now(*, strict: bool, owner: str = "o", quota: int | None = None) -> Snapshot:
    there = Aggregate(
        "a", tuple(Host(number, f"h{number}", dict(free), free, free) for number, free in enumerate(HOSTS))
    )
    quotas = {} if quota is None else {(1, "o"): {"cpu": quota}}
    classes = (waiting(1, NEED), waiting(2, cpus(300), owner=owner))
    return seen(*classes, there=(there,), strict=strict, quotas=quotas)


@BOTH
def test_it_is_tried_and_blocks_nobody(strict: bool) -> None:
    """Catches: set aside as one that never fits, so that no look ever tries it; a queue stopped by it."""
    decision = decide(_now(strict=strict))
    assert admitted(decision) == [(2, "a")]
    assert levels(decision) == {1: Level.NO_CAPACITY}
    verdict = decision.verdicts[1001]
    assert (verdict.candidates, verdict.doubtful) == (("a",), True)
    assert decision.reservation is None


def test_nor_does_its_quota_stop_its_owner_s_others() -> None:
    """Catches: strict order kept for the sake of an entry that may never go."""
    decision = decide(_now(strict=True, quota=sum(count * size[0][1] for count, size in NEED)))
    assert admitted(decision) == [(2, "a")]
    assert levels(decision) == {1: Level.OVER_QUOTA}


@BOTH
def test_it_is_said(strict: bool) -> None:
    """Catches: a plain "0 of 1 aggregates can hold it" where that is not known."""
    now = _now(strict=strict)
    asked = ask(now, 1001, now.classes[0].heads[0])
    found = reason(asked, lambda _: None, [])
    assert found.code == "no_capacity"
    assert (
        "0 of 1 aggregates can hold all 65 instances; "
        "1 of 1 aggregates may hold all 65 instances: the search for a place has a limit, and ended there. "
        "Whether all there is suffices for it is not known: every look tries it, it holds nobody up"
    ) in found.message
    assert [(each["satisfied"], each["of"]) for each in found.conditions[-2:]] == [(0, 1), (1, 1)]
    guess = estimate(Scene(asked, 0, [], RunTimes([]), {}), [], 0.0)
    assert isinstance(guess, Unknown)
    assert "not known whether what there is could ever hold it" in guess.because


def test_others_are_estimated_past_it() -> None:
    """Catches: everybody behind it told that they wait for ever."""
    now = _now(strict=True)
    asked = ask(now, 1002, now.classes[1].heads[0])
    guess = estimate(Scene(asked, 1, [], RunTimes([]), {}), [], 0.0)
    assert not isinstance(guess, Unknown)
    assert guess.p50 == 0.0


def test_an_estimate_searches_less_than_an_admission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: estimates of hard mixtures that take a second of the process in which others are admitted."""
    asked_for: list[int] = []

    def searched(need: Need, names: object, hosts: object, steps: int) -> Found:
        asked_for.append(steps)
        return Found(None, sure=False, steps=steps)

    monkeypatch.setattr(packing, "search", searched)
    now = _now(strict=False)
    forecast(Scene(ask(now, 1002, now.classes[1].heads[0]), 1, [], RunTimes([]), {}))
    estimated, asked_for[:] = list(asked_for), []
    decide(now)
    assert sum(estimated) <= ESTIMATED + len(estimated) * LEAST_STEPS
    assert asked_for[0] == STEPS


def test_of_a_later_window_only_what_is_not_kept_is_given() -> None:
    """Catches: an aggregate kept for the first in line that is given to one of those looked at this time."""
    there = (aggregate("a", 4, total=8), aggregate("b", 2, total=8))
    kept = Reservation(1, "a", 3.0)
    head, others = waiting(1, cpus(8)), (waiting(501, cpus(1), count=4), waiting(601, cpus(4), owner="p"))
    decision = decide(seen(head, *others, there=there, reservation=kept, approximate=True))
    assert admitted(decision) == [(501, "b"), (502, "b")]
    assert decision.reservation == kept


def test_who_goes_is_told_when_others_may_be_before_it() -> None:
    """Catches: "the next look admits it" of one that a later look comes to."""
    now = seen(waiting(1, cpus(1)), there=(aggregate("a", 4),), approximate=True)
    asked = ask(now, 1001, now.classes[0].heads[0])
    found = reason(asked, lambda _: None, [])
    assert (found.code, "looks go on through all that wait" in found.message) == ("evaluating", True)
