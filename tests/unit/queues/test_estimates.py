"""Estimates: run times, bounds and their calibration, and what is told."""

from __future__ import annotations

import math
import random
from statistics import median
from typing import Any

import pytest

from queues.estimates.calibration import Outcome, accuracy, bound, steered
from queues.estimates.estimate import FORWARD, PAST_WAITS, estimate, quantile
from queues.estimates.forward import Scene
from queues.estimates.runtimes import ENOUGH, Ended, RunTimes
from tests.unit.queues.deciding import aggregate, cpus, seen, waiting
from tests.unit.queues.estimating import runs, scene

# --- run times ------------------------------------------------------------------------------------


def test_run_times_are_of_the_narrowest_class_with_enough_samples() -> None:
    ended = [Ended("a", cpus(1), 0, 1.0)] * ENOUGH + [Ended("b", cpus(1), 0, 2.0)] * (ENOUGH - 1)
    ended += [Ended("b", cpus(2), 0, 3.0)] * ENOUGH
    known = RunTimes(ended)
    assert set(known.known("a", cpus(1))) == {1.0}
    assert set(known.known("b", cpus(1))) == {1.0, 2.0}
    assert set(known.known("c", cpus(3))) == {1.0, 2.0, 3.0}
    assert known.draw("a", cpus(2), 0.0, 0.5, None) == 3.0
    assert RunTimes(ended[: ENOUGH - 1]).draw("a", cpus(1), 0.0, 0.5, None) is None


def test_run_times_are_longer_than_the_age() -> None:
    known = RunTimes([Ended("a", cpus(1), 0, float(seconds)) for seconds in range(1, 101)])
    assert {known.draw("a", cpus(1), 97.0, number / 30, None) for number in range(30)} == {98.0, 99.0, 100.0}
    later = [known.draw("a", cpus(1), 200.0, number / 30, None) or 0.0 for number in range(30)]
    assert min(later) >= 200.0
    assert 250 < median(later) < 320
    assert known.draw("a", cpus(1), 10.0, 0.99, 20.0) == 20.0
    assert known.draw("a", cpus(1), 30.0, 0.99, 20.0) == 100.0, "a cap that was passed says nothing"


# --- bounds and their calibration -----------------------------------------------------------------


def test_a_bound_from_past_waits_needs_29_of_them() -> None:
    """1 - 0.9 ** 28 is 94.8 %, 1 - 0.9 ** 29 is 95.3 %."""
    assert bound([1.0] * 28) is None
    assert bound([float(number) for number in range(29)]) == 28.0
    assert bound([float(number) for number in range(100)]) == 95.0


def test_a_bound_from_past_waits_is_right_as_often_as_it_says() -> None:
    rng = random.Random(4)
    right = 0
    for _ in range(1000):
        right += (bound([rng.expovariate(1.0) for _ in range(60)]) or 0.0) >= math.log(10.0)
    assert right >= 935


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_factor_is_steered_until_one_in_ten_misses(scale: float) -> None:
    rng = random.Random(7)
    tilt, missed = 0.0, []
    for _ in range(3000):
        missed.append(scale * rng.expovariate(1.0) > math.log(10.0) * math.exp(tilt))
        tilt = steered(tilt, missed[-1:])
    assert 0.08 < sum(missed[500:]) / 2500 < 0.12
    assert math.exp(tilt) == pytest.approx(scale, rel=0.6)


def test_a_factor_stays_within_bounds() -> None:
    assert steered(0.0, [True] * 9999) == pytest.approx(math.log(8.0))
    assert steered(0.0, [False] * 9999) == pytest.approx(-math.log(8.0))


def test_accuracy() -> None:
    assert accuracy([]) == {"coverage_p90": None, "median_error": None, "samples": 0}
    outcomes = [Outcome(10.0, 20.0, 10.0), Outcome(10.0, 20.0, 20.0), Outcome(10.0, 20.0, 40.0)]
    assert accuracy(outcomes) == {"coverage_p90": 0.667, "median_error": 0.5, "samples": 3}


# --- what is told ---------------------------------------------------------------------------------


def told_of(
    of: Scene, past: list[Ended] | None = None, waited: float = 0.0, tilt: float = 0.0
) -> dict[str, Any]:
    return estimate(of, past or [], tilt, waited).shown()


def test_what_is_told() -> None:
    now = seen(waiting(1, cpus(1)), there=(aggregate("a", 0, total=1),), strict=True)
    of = scene(now, 1, [runs(90, cpus(1), 10.0, 9700)])
    assert told_of(of) == {"p50_s": 50.0, "p90_s": 51.5, "method": FORWARD, "samples": ENOUGH}
    assert told_of(of, tilt=math.log(8))["p90_s"] == 62.0
    free = scene(seen(waiting(1, cpus(1)), there=(aggregate("a", 1),), strict=True), 1)
    assert told_of(free) == {"p50_s": 0.0, "p90_s": 2.0, "method": FORWARD, "samples": ENOUGH}


def test_past_waits_where_run_times_are_not_known() -> None:
    now = seen(waiting(1, cpus(1)), there=(aggregate("a", 0, total=1),), strict=True)
    of = scene(now, 1, [runs(90, cpus(1), 10.0, 9700)], ended=[])
    past = [Ended("p", cpus(2), float(number), 1.0) for number in range(29)]
    assert told_of(of, past) == {"p50_s": 14.0, "p90_s": 28.0, "method": PAST_WAITS, "samples": 29}
    assert told_of(of, past, waited=10.0)["p90_s"] == 18.0
    assert "longer than such entries" in told_of(of, past, waited=28.0)["unknown"]
    assert "29 do" in told_of(of, past[1:])["unknown"]


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"trouble": "placement was heard never"}, "placement was heard never"),
        ({"there": (aggregate("a", 0, total=1, tenants=frozenset({9})),)}, "could ever hold it"),
        ({"there": (aggregate("a", 0, total=0),)}, "could ever hold it"),
        ({"quotas": {(1, "o"): {"cpu": 0}}}, "than its owner may hold"),
        ({"there": (aggregate("a", 0, total=1),)}, "does not suffice"),
    ],
)
def test_unknown_because(changed: dict[str, Any], because: str) -> None:
    values: dict[str, Any] = {"there": (aggregate("a", 0, total=2),), "strict": True, **changed}
    now = seen(waiting(1, cpus(1)), **values)
    assert because in told_of(scene(now, 1))["unknown"]


def test_quantiles_of_a_few_values() -> None:
    assert quantile([5.0], 0.9) == 5.0
    assert quantile([0.0, 10.0], 0.5) == 5.0
    assert quantile([1.0, 2.0, math.inf, math.inf], 0.9) == math.inf
    assert quantile([1.0] * 15 + [math.inf], 0.5) == 1.0
