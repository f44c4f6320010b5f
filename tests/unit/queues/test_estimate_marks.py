"""Estimates on traces in virtual time: how often their bounds hold, and how sharp they are."""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from tests.unit.queues import traces
from tests.unit.queues.traces import Told, World, told


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
