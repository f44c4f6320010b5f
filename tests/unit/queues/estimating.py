"""Scenes made up for estimates: who runs, who has ended, who is ahead."""

from __future__ import annotations

from queues.admission.asked import ask
from queues.admission.decide import Snapshot
from queues.estimates.forward import Running, Scene
from queues.estimates.runtimes import ENOUGH, Ended, RunTimes
from queues.needs import Need
from tests.unit.queues.deciding import cpus

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
