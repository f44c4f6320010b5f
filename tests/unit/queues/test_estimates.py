"""Estimates: the parts on examples that a person can follow, and marks on traces in virtual time."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from queues.admission.asked import ask
from queues.admission.decide import Class, Head, Snapshot
from queues.estimates import forward
from queues.estimates.calibration import Outcome, accuracy, bound, steered
from queues.estimates.estimate import FORWARD, PAST_WAITS, estimate, quantile
from queues.estimates.forward import FUTURES, Running, Scene, forecast, uniform
from queues.estimates.runtimes import ENOUGH, Ended, RunTimes
from queues.needs import Need
from tests.unit.queues import traces
from tests.unit.queues.deciding import aggregate, cpus, gang, seen, waiting
from tests.unit.queues.traces import Told, World, told

ALWAYS_60 = [Ended("o", cpus(1), 0.0, 60.0)] * ENOUGH


def scene(
    now: Snapshot,
    entry: int,
    running: list[Running] | None = None,
    ended: list[Ended] | None = None,
    ahead: int | None = None,
    caps: dict[int, float] | None = None,
) -> Scene:
    cls, head = next((cls, head) for cls in now.classes for head in cls.heads if head.id == entry)
    before = sum(
        (each.priority, each.tie) < (head.priority, head.tie)
        for other in now.classes
        if other.queue == cls.queue
        for each in other.heads
    )
    ahead = before if ahead is None else ahead
    return Scene(
        ask(now, cls.id, head),
        ahead,
        running or [],
        RunTimes(ALWAYS_60 if ended is None else ended),
        caps or {},
    )


def runs(entry: int, need: Need, age: float, host: int, cap: float | None = None, queue: int = 1) -> Running:
    ((_, size),) = need
    return Running(entry, queue, "o", need, age, cap, tuple((host, name, amount) for name, amount in size))


def waits(of: Scene, **more: Any) -> tuple[float, ...]:
    found = forecast(of, deadline_s=60.0, **more)
    assert found is not None
    return found.waits


# --- the decision, run forward --------------------------------------------------------------------


def test_the_queue_moves_as_what_runs_ends() -> None:
    """Catches: an end that frees nothing, somebody behind who passes, what was admitted never ending."""
    now = seen(waiting(1, cpus(1), count=4), there=(aggregate("a", 0, total=2),), strict=True)
    running = [runs(90, cpus(1), 10.0, 9700), runs(91, cpus(1), 40.0, 9700)]
    assert [set(waits(scene(now, entry, running))) for entry in (1, 2, 3, 4)] == [
        {20.0},
        {50.0},
        {80.0},
        {110.0},
    ]


def test_a_gang_waits_until_all_of_it_fits() -> None:
    now = seen(waiting(1, gang(2, cpu=2)), there=(aggregate("a", 0, 0, total=2),), strict=True)
    running = [runs(90, gang(1, cpu=2), 10.0, 9700), runs(91, gang(1, cpu=2), 40.0, 9701)]
    assert set(waits(scene(now, 1, running))) == {50.0}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("large", "expected"), [(2, 20.0), (1, 50.0)])
def test_a_head_blocks_only_where_it_could_go(strict: bool, large: int, expected: float) -> None:
    """Catches: the short way taken where somebody behind may pass. The one before goes to b, at 20 s."""
    now = seen(
        waiting(1, cpus(large)), waiting(2, cpus(1), owner="p"),
        there=(aggregate("a", 0, total=2), aggregate("b", 0, total=1)), strict=strict,
    )  # fmt: skip
    running = [runs(90, cpus(2), 10.0, 9700), runs(91, cpus(1), 40.0, 9800)]
    assert set(waits(scene(now, 2, running))) == {expected}


@pytest.mark.parametrize(("strict", "expected"), [(True, 50.0), (False, 0.0)])
def test_in_best_effort_smaller_ones_may_pass(strict: bool, expected: float) -> None:
    """The large one has a kept for it; the small one fits into b now."""
    now = seen(
        waiting(1, cpus(2)), waiting(2, cpus(1), owner="p"),
        there=(aggregate("a", 1, total=2), aggregate("b", 1, total=2)), strict=strict,
    )  # fmt: skip
    assert set(waits(scene(now, 2, [runs(90, cpus(1), 10.0, 9700)]))) == {expected}


@pytest.mark.parametrize("strict", [True, False])
def test_what_can_go_nowhere_delays_nobody(strict: bool) -> None:
    """Catches: a line that begins with what is set aside, or with what its owner may never hold."""
    large = waiting(1, cpus(9), count=40)
    forbidden = waiting(50, cpus(2), owner="p", count=40)
    now = seen(
        large, forbidden, waiting(100, cpus(1)), there=(aggregate("a", 0, total=2),),
        strict=strict, quotas={(1, "p"): {"cpu": 1}},
    )  # fmt: skip
    assert set(waits(scene(now, 100, [runs(90, cpus(1), 10.0, 9700)], ahead=0))) == {50.0}


@pytest.mark.parametrize("strict", [True, False])
def test_those_of_an_owner_at_its_quota_are_passed(strict: bool) -> None:
    """Catches: a window that is filled by the entries of one class, so that nobody behind is looked at."""
    now = seen(
        waiting(1, cpus(1), owner="p", count=40), waiting(100, cpus(1)), there=(aggregate("a", 0, total=2),),
        strict=strict, quotas={(1, "p"): {"cpu": 1}}, held={(1, "p"): {"cpu": 1}},
    )  # fmt: skip
    running = [replace(runs(90, cpus(1), 10.0, 9700), owner="p"), runs(91, cpus(1), 40.0, 9700)]
    assert set(waits(scene(now, 100, running))) == {20.0}
    assert set(waits(scene(now, 2, running))) == {110.0}


def test_tenants_take_turns_by_their_shares() -> None:
    """Catches: the other tenant's entries left out of what is ahead."""
    mine, theirs = waiting(10, cpus(1), count=2), waiting(20, cpus(1), tenant=2, count=2)
    now = seen(mine, theirs, there=(aggregate("a", 0, total=1),), strict=True, shares={1: {"cpu": 1}})
    running = [runs(90, cpus(1), 0.0, 9700)]
    assert set(waits(scene(now, 10, running))) == {60.0}
    assert set(waits(scene(now, 11, running))) == {180.0}


def test_declared_durations_cap_run_times_and_suffice_alone() -> None:
    now = seen(waiting(1, cpus(1), count=2), there=(aggregate("a", 0, total=1),), strict=True)
    running = [runs(90, cpus(1), 5.0, 9700, cap=30.0)]
    assert set(waits(scene(now, 1, running))) == {25.0}
    assert set(waits(scene(now, 2, running, ended=[], caps={1: 100.0}))) == {125.0}
    assert forecast(scene(now, 2, running, ended=[])) is None


@pytest.mark.parametrize("seed", range(6))
def test_the_short_way_is_the_decision(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying the head alone, where it blocks all others, gives what whole decisions give."""
    rng = random.Random(seed)
    world = World()
    for entry, each in enumerate(traces.steady(60, seed, every=20.0), 1):
        world.now = max(world.now, each.at)
        world.waiting[entry] = each
        world.look()
    ended = [Ended(each.owner, each.need, 0.0, each.runs) for each in traces.steady(300, seed)]
    now = world.snapshot()
    entry = rng.choice([head.id for each in now.classes for head in each.heads])
    asked = scene(now, entry, world.runs(), ended)
    short = forecast(asked, deadline_s=60.0)
    monkeypatch.setattr(forward, "_Play", _Whole)
    assert forecast(asked, budget=100_000, deadline_s=60.0) == short


class _Whole(forward._Play):
    """Whole decisions on a window of entries."""

    def __init__(self, scene: Scene, budget: int, pause_s: float = 0.0) -> None:
        super().__init__(scene, budget, pause_s)
        self.plain, self.window = False, 100


def test_the_same_question_has_the_same_answer_and_a_second_later_a_similar_one() -> None:
    """Catches: estimates that flicker while a client polls."""
    ended = [Ended("o", cpus(1), 0.0, 50.0 + 10.0 * number) for number in range(60)]
    now = seen(waiting(1, cpus(1), count=9), there=(aggregate("a", 0, total=4),), strict=True)

    def at(second: float) -> float:
        running = [runs(90 + number, cpus(1), 30.0 * number + second, 9700) for number in range(4)]
        return quantile(waits(scene(now, 6, running, ended)), 0.9)

    assert at(0) == at(0)
    assert abs(at(1) - at(0)) < 0.05 * at(0)


def test_draws_are_spread_over_the_futures() -> None:
    for entry in range(50):
        drawn = sorted(uniform(7, entry, future) for future in range(FUTURES))
        assert [int(each * FUTURES) for each in drawn] == list(range(FUTURES))


def test_a_long_queue_is_extrapolated_by_its_work_within_its_time() -> None:
    classes = [
        waiting(100 * number, cpus(1), owner=f"o{number}", count=500, known=4) for number in range(1, 200)
    ]
    there = tuple(aggregate(name, *[0] * 10, total=4) for name in "abcdefgh")
    hosts = [host.id for each in there for host in each.hosts]
    running = [runs(10**6 + number, cpus(1), number % 60, hosts[number // 4]) for number in range(320)]
    last = 10**8
    cls = Class(5000, 1, 1, "o", cpus(1), "", (Head(last, last, "V"),), 1)
    now = seen(*classes, cls, there=there, strict=True)
    of = scene(now, last, running, ahead=99_500)
    begun = time.process_time()
    found = forecast(of)
    assert found is not None
    assert time.process_time() - begun < 2.0
    assert found.extrapolated
    # 320 end each 60 s.
    assert 0.7 < quantile(found.waits, 0.5) / (99_500 / 320 * 60) < 1.3


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


# --- marks, on traces in virtual time --------------------------------------------------------------


def loss(of: list[Told], guess: str) -> float:
    """The mean pinball loss at 0.9."""
    off = [each.waited - float(getattr(each, guess)) for each in of]
    return sum(0.9 * each if each > 0 else -0.1 * each for each in off) / len(off)


def coverage(of: list[Told]) -> float:
    return sum(each.waited <= each.p90 for each in of) / len(of)


def rolling(of: list[Told], length: int = 500) -> list[float]:
    return [coverage(of[first : first + length]) for first in range(len(of) - length + 1)]


def sharpness(of: list[Told]) -> float:
    return median(each.p90 / each.waited for each in of)


def better(of: list[Told]) -> float:
    """Its loss as a share of the better plain guess's."""
    return loss(of, "p90") / min(loss(of, "by_position"), loss(of, "by_last"))


@pytest.mark.parametrize("trace", [traces.steady, traces.bursts])
def test_marks_of_short_traces(trace: Any) -> None:
    found = told(trace(800, 1))
    assert 0.87 <= coverage(found) <= 0.94
    assert sharpness(found) <= 3
    assert better(found) <= 0.8


def test_marks_of_best_effort() -> None:
    """Who comes later may pass, which nobody knows beforehand."""
    found = told(traces.steady(400, 1, every=44.0), World(strict=False))
    assert 0.85 <= coverage(found) <= 0.95
    assert sharpness(found) <= 3
    assert better(found) <= 0.8


def test_a_short_change_of_regime() -> None:
    found = told(traces.change(800, 1))
    before = [each for each in found if each.entry <= 400]
    assert 0.87 <= coverage(before) <= 0.94
    assert 0.80 <= coverage(found) <= 0.94
    assert sharpness(found) <= 3
    assert better(before) <= 0.8


@pytest.mark.long
@pytest.mark.parametrize("trace", [traces.steady, traces.bursts])
def test_marks_of_stationary_traces(trace: Any) -> None:
    found = told(trace(5000, 1))
    assert 0.88 <= coverage(found) <= 0.93
    windows = rolling(found)
    assert min(windows) >= 0.85
    assert max(windows) <= 0.95
    assert sharpness(found) <= 3
    assert better(found) <= 0.8


@pytest.mark.long
def test_marks_around_a_change_of_regime() -> None:
    found = told(traces.change(5000, 1))
    before = [each for each in found if each.entry <= 2500]
    after = [each for each in found if each.entry > 2500]
    for part in (before, after):
        assert 0.88 <= coverage(part) <= 0.93
        assert sharpness(part) <= 3
        assert better(part) <= 0.8
    windows = rolling(before) + rolling([each for each in after if each.entry > 3000])
    assert min(windows) >= 0.85
    assert max(windows) <= 0.95
