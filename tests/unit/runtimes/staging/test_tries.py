"""How long a storage's trouble is outlasted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings

from workers.runtimes.staging import tries
from workers.runtimes.staging.tries import Interrupted, Overdue, limited, patiently
from workers.storage.base import StorageFailed, Trouble


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tries, "time", clock)
    return clock


def failing(*troubles: Trouble | None) -> Callable[[], str]:
    """Fails so, one after another; the last one for ever. None succeeds."""
    left = list(troubles)

    def once() -> str:
        trouble = left.pop(0) if len(left) > 1 else left[0]
        if trouble is not None:
            raise StorageFailed("it does not answer", trouble)
        return "done"

    return once


def call(once: Callable[[], str], moved: Callable[[], int] = lambda: 0, patience_s: float = 60.0) -> str:
    said: list[str] = []
    return patiently(once, patience_s=patience_s, moved=moved, tick=lambda: None, tell=said.append)


def test_silence_is_outlasted(clock: Clock) -> None:
    assert call(failing(Trouble.AWAY, Trouble.AWAY, Trouble.AWAY, None)) == "done"
    assert 1 + 2 + 4 <= clock.now < 8


def test_but_not_for_ever(clock: Clock) -> None:
    with pytest.raises(StorageFailed):
        call(failing(Trouble.AWAY))
    assert 60 <= clock.now < 60 + 30


@pytest.mark.parametrize(
    "trouble", [Trouble.MISSING, Trouble.DENIED, Trouble.FULL, Trouble.REFUSED, Trouble.OTHER]
)
def test_what_waiting_does_not_mend_fails_at_once(clock: Clock, trouble: Trouble) -> None:
    with pytest.raises(StorageFailed):
        call(failing(trouble, None))
    assert clock.now == 0


def test_damage_is_mended_twice(clock: Clock) -> None:
    assert call(failing(Trouble.DAMAGED, Trouble.CHANGED, None)) == "done"
    with pytest.raises(StorageFailed):
        call(failing(Trouble.DAMAGED, Trouble.AWAY, Trouble.DAMAGED, Trouble.CHANGED, None))


def test_every_byte_that_came_through_gives_new_patience(clock: Clock) -> None:
    moved = 0

    def once() -> str:
        nonlocal moved
        if clock.now < 300:
            moved += 1
            raise StorageFailed("cut off", Trouble.AWAY)
        return "done"

    assert call(once, lambda: moved) == "done"
    assert clock.now >= 300


def test_without_patience_only_progress_earns_another_try(clock: Clock) -> None:
    with pytest.raises(StorageFailed):
        call(failing(Trouble.AWAY, None), patience_s=0)
    assert clock.now == 0
    counts = iter([0, 5, 5, 5])
    assert call(failing(Trouble.AWAY, None), lambda: next(counts), patience_s=0) == "done"


def test_a_cancel_ends_a_pause(clock: Clock) -> None:
    def tick() -> None:
        if clock.now > 0.5:
            raise Interrupted

    with pytest.raises(Interrupted):
        patiently(failing(Trouble.AWAY), patience_s=60, moved=lambda: 0, tick=tick, tell=lambda _: None)
    assert clock.now < 1


def test_a_storage_that_drips_does_not_hold_a_place_for_ever(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "GANTRY_STAGING_TIMEOUT_S", 100)
    tick = limited(lambda: None, "fetching its inputs")
    clock.now = 99.0
    tick()
    clock.now = 101.0
    with pytest.raises(Overdue) as overdue:
        tick()
    assert overdue.value.message == (
        "fetching its inputs took more than 100 s (an operator can raise GANTRY_STAGING_TIMEOUT_S)"
    )
