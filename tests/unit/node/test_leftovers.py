"""What could not be removed is told, and tried more and more seldom; it stops nothing else."""

from __future__ import annotations

import pytest

from workers.node.leftovers import Key, Leftovers

ONE: Key = ("process", 17, 1)
OTHER: Key = ("container", 18, 2)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(leftovers: Leftovers, key: Key, error: Exception | None = None) -> None:
    with leftovers.removing(key):
        raise error or OSError("/x cannot be removed")


def test_it_is_tried_more_and_more_seldom_and_for_ever() -> None:
    clock = Clock()
    leftovers = Leftovers(clock)
    assert leftovers.due(ONE)
    pauses = []
    for _ in range(60):
        fail(leftovers, ONE)
        began = clock.now
        while not leftovers.due(ONE):
            clock.now += 30
        pauses.append(clock.now - began)
        assert leftovers.due(OTHER)
    assert pauses[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert set(pauses[8:]) == {3600}


def test_it_is_told_until_it_is_gone() -> None:
    leftovers = Leftovers()
    assert leftovers.words() == ""
    fail(leftovers, ONE)
    assert leftovers.words() == "left of run 17 (process, attempt 1): /x cannot be removed"
    fail(leftovers, OTHER, OSError("container c cannot be removed"))
    assert leftovers.words() == (
        "left of run 18 (container, attempt 2): container c cannot be removed"
        "; 1 more, see leftover.not_removed in its log"
    )
    with leftovers.removing(OTHER):
        pass
    assert leftovers.words().startswith("left of run 17")
    assert leftovers.due(OTHER)


def test_what_somebody_else_has_removed_is_forgotten() -> None:
    leftovers = Leftovers()
    fail(leftovers, ONE)
    fail(leftovers, OTHER)
    leftovers.only("process", [(18, 2), (17, 2)])
    assert leftovers.words().startswith("left of run 18 (container")
    assert "more" not in leftovers.words()
    leftovers.only("container", [(18, 2)])
    assert leftovers.words()
    leftovers.only("container", [])
    assert leftovers.words() == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError(), "KeyError()"),
        (OSError("/\udcff\0 stays"), "/\\udcff\\0 stays"),
        (RecursionError("too deep"), "too deep"),
        (OSError("x" * 5_000), "x"),
    ],
)
def test_whatever_stops_it_is_told_as_a_database_takes_it(error: Exception, said: str) -> None:
    leftovers = Leftovers()
    fail(leftovers, ONE, error)
    assert said in leftovers.words()
    assert len(leftovers.words()) < 600
    assert leftovers.words().encode()
