"""The decision, run forward, on examples that a person can follow."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import pytest

from queues.admission.decide import Class, Head
from queues.estimates import forward
from queues.estimates.estimate import quantile
from queues.estimates.forward import FUTURES, Scene, forecast, uniform
from queues.estimates.runtimes import Ended
from tests.unit.queues import traces
from tests.unit.queues.deciding import aggregate, cpus, gang, seen, waiting
from tests.unit.queues.estimating import runs, scene
from tests.unit.queues.traces import World


def waits(of: Scene, **more: Any) -> tuple[float, ...]:
    found = forecast(of, deadline_s=60.0, **more)
    assert found is not None
    return found.waits


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
