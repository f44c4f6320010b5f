"""Queues in virtual time: made-up requests, admitted by the real decision, each asked for its wait as it comes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from queues.admission.decide import Aggregate, Class, Head, Snapshot, decide
from queues.estimates.forward import Running
from queues.estimates.runtimes import Ended
from queues.needs import Need
from tests.unit.queues.deciding import aggregate, gang

#: Three aggregates of two hosts.
THERE = tuple(aggregate(name, 16, 16) for name in "abc")
SIZES: tuple[tuple[Need, float], ...] = (
    (gang(1, cpu=2), 0.4),
    (gang(2, cpu=2), 0.2),
    (gang(1, cpu=6), 0.2),
    (gang(3, cpu=4), 0.15),
    (gang(8, cpu=2), 0.05),
)
OWNERS = ("ann", "bob", "cy", "dee")


@dataclass(frozen=True)
class Request:
    at: float
    owner: str
    need: Need
    runs: float


def request(rng: random.Random, at: float, scale: float = 1.0) -> Request:
    """Mostly small ones; owners differ in how long theirs run (means of 300 to 1,200 s)."""
    need = rng.choices([need for need, _ in SIZES], [weight for _, weight in SIZES])[0]
    number = rng.randrange(len(OWNERS))
    runs = 300.0 * (number + 1) * rng.lognormvariate(-0.125, 0.5) * scale
    return Request(at, OWNERS[number], need, runs)


def steady(
    count: int, seed: int, every: float = 50.0, scale: float = 1.0, start: float = 0.0
) -> list[Request]:
    rng = random.Random(seed)
    at, found = start, []
    for _ in range(count):
        at += rng.expovariate(1.0 / every)
        found.append(request(rng, at, scale))
    return found


def bursts(count: int, seed: int, every: float = 50.0, size: int = 12) -> list[Request]:
    """Half of them in bursts of about ``size`` at once, the others between."""
    rng = random.Random(seed)
    at, found = 0.0, []
    while len(found) < count:
        many = rng.randint(size // 2, size + size // 2)
        span = rng.expovariate(1.0) * many * 2 * every
        between = sorted(rng.uniform(0, span) for _ in range(many))
        found += [request(rng, at) for _ in range(many)]
        found += [request(rng, at + each) for each in between]
        at += span
    return found[:count]


def change(count: int, seed: int, every: float = 50.0) -> list[Request]:
    """At half of it everything runs half as long again, and comes that much less often."""
    first = steady(count // 2, seed, every)
    return first + steady(count - count // 2, seed + 1, every * 1.5, 1.5, first[-1].at)


@dataclass
class World:
    """What runs and waits at a moment of virtual time; ``there`` is what it runs on."""

    there: tuple[Aggregate, ...] = THERE
    strict: bool = True
    now: float = 0.0
    waiting: dict[int, Request] = field(default_factory=dict)
    running: dict[int, tuple[Request, float, tuple[tuple[int, str, int], ...]]] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    ends: list[tuple[float, int]] = field(default_factory=list)
    free: dict[int, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = {host.id: dict(host.free) for each in self.there for host in each.hosts}

    def snapshot(self, heads: int = 60) -> Snapshot:
        """As queues.admission.snapshot reads it: by class, the first of each."""
        groups: dict[tuple[str, Need], list[Head]] = {}
        for entry, each in self.waiting.items():
            groups.setdefault((each.owner, each.need), []).append(Head(entry, entry, "V", each.at))
        classes = tuple(
            Class(1000 + found[0].id, 1, 1, owner, need, "", tuple(found[:heads]), len(found))
            for (owner, need), found in groups.items()
        )
        there = tuple(
            Aggregate(
                each.name,
                tuple(
                    type(host)(host.id, host.name, self.free[host.id], host.total, host.largest)
                    for host in each.hosts
                ),
            )
            for each in self.there
        )
        return Snapshot(strict=self.strict, aggregates=there, classes=classes)

    def look(self) -> list[int]:
        """Admit what can be admitted now."""
        admitted = []
        more = bool(self.waiting)
        while more:
            decision = decide(self.snapshot(4))
            for each in decision.admitted:
                wanted = self.waiting.pop(each.entry)
                holds = tuple(
                    (host, name, count * n) for host, count, size in each.places for name, n in size
                )
                for host, name, amount in holds:
                    self.free[host][name] -= amount
                self.running[each.entry] = (wanted, self.now, holds)
                heapq.heappush(self.ends, (self.now + wanted.runs, each.entry))
                admitted.append(each.entry)
            more = decision.more and bool(decision.admitted)
        return admitted

    def end(self) -> None:
        self.now, entry = heapq.heappop(self.ends)
        wanted, since, holds = self.running.pop(entry)
        for host, name, amount in holds:
            self.free[host][name] += amount
        self.ended.append(Ended(wanted.owner, wanted.need, self.now - since))

    def runs(self) -> list[Running]:
        return [
            Running(entry, 1, wanted.owner, wanted.need, self.now - since, None, holds)
            for entry, (wanted, since, holds) in self.running.items()
        ]


def played(world: World, requests: list[Request]) -> Iterator[tuple[str, int]]:
    """Play them: ("came", entry) for each that has to wait, ("admitted", entry) for each, as it happens."""
    for entry, each in enumerate(requests, 1):
        while world.ends and world.ends[0][0] <= each.at:
            world.end()
            for other in world.look():
                yield "admitted", other
        world.now = each.at
        world.waiting[entry] = each
        admitted = world.look()
        for other in admitted:
            yield "admitted", other
        if entry not in admitted:
            yield "came", entry
    while world.waiting and world.ends:
        world.end()
        for other in world.look():
            yield "admitted", other
