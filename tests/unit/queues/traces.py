"""Queues in virtual time: made-up requests, admitted by the real decision, each told its wait as it comes."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from queues.admission.asked import ask
from queues.admission.decide import Aggregate, Class, Head, Snapshot, decide
from queues.estimates.calibration import steered
from queues.estimates.estimate import Unknown, estimate
from queues.estimates.forward import Running, Scene
from queues.estimates.runtimes import Ended, RunTimes
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


def bursts(count: int, seed: int, every: float = 60.0, size: int = 6) -> list[Request]:
    """Half of them in bursts of about ``size`` at once, the others between."""
    rng = random.Random(seed)
    at = 0.0
    found: list[Request] = []
    while len(found) < count:
        many = rng.randint(size // 2, size + size // 2)
        span = rng.uniform(0.5, 1.5) * many * 2 * every
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
        self.ended.append(Ended(wanted.owner, wanted.need, since - wanted.at, self.now - since))

    def runs(self) -> list[Running]:
        return [
            Running(entry, 1, wanted.owner, wanted.need, self.now - since, None, holds)
            for entry, (wanted, since, holds) in self.running.items()
        ]


def played(world: World, requests: list[Request]) -> Iterator[tuple[str, int]]:
    """Play them: ("waits", entry) for each that has to, ("admitted", entry) for each, as it happens."""
    for entry, each in enumerate(requests, 1):
        while world.ends and world.ends[0][0] <= each.at:
            world.end()
            yield from (("admitted", other) for other in world.look())
        world.now = each.at
        world.waiting[entry] = each
        admitted = world.look()
        yield from (("admitted", other) for other in admitted)
        if entry not in admitted:
            yield "waits", entry
    while world.waiting and world.ends:
        world.end()
        yield from (("admitted", other) for other in world.look())


@dataclass
class Told:
    """What one entry was told at its submission, beside two plain guesses, and how long it waited."""

    entry: int
    at: float
    p50: float
    p90: float
    #: The bound before its calibration.
    raw: float
    by_position: float
    by_last: float
    method: str
    #: Its bound is known to have been missed, or held.
    known: bool = False
    waited: float = math.inf


class Office:
    """Tells estimates as the service does, and learns from what becomes of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tilt = 0.0
        self.open: dict[int, Told] = {}
        self.told: list[Told] = []
        self.unknown = 0
        self.last = 0.0
        self.moments: list[float] = []
        self.past: list[Ended] = []
        self.runtimes = RunTimes([])

    def admitted(self, entry: int) -> None:
        self.moments.append(self.world.now)
        found = self.open.pop(entry, None)
        if found is not None:
            found.waited = self.last = self.world.now - found.at
            if not found.known:
                self.tilt = steered(self.tilt, [found.waited > found.p90])

    def waits(self, entry: int) -> None:
        world = self.world
        for each in self.open.values():
            if not each.known and world.now - each.at > each.p90:
                each.known = True
                self.tilt = steered(self.tilt, [True])
        if len(world.ended) % 10 == 0 or not self.past:
            self.past = world.ended[-500:][::-1]
            self.runtimes = RunTimes(self.past)
        found = estimate(self._scene(entry), self.past, self.tilt, deadline_s=60.0)
        if isinstance(found, Unknown):
            self.unknown += 1
            return
        lately = self.moments[-100:]
        interval = (lately[-1] - lately[0]) / max(1, len(lately) - 1)
        guess = len(world.waiting) * interval
        self.open[entry] = Told(
            entry, world.now, found.p50, found.p90, found.raw, guess, self.last, found.method
        )
        self.told.append(self.open[entry])

    def _scene(self, entry: int) -> Scene:
        seen = self.world.snapshot()
        cls = next(each for each in seen.classes if any(head.id == entry for head in each.heads))
        asked = ask(seen, cls.id, next(head for head in cls.heads if head.id == entry))
        return Scene(asked, len(self.world.waiting) - 1, self.world.runs(), self.runtimes, {})


def told(requests: list[Request], world: World | None = None) -> list[Told]:
    """Play a trace; what every entry that had to wait was told, in the order of their submission."""
    office = Office(world or World())
    for what, entry in played(office.world, requests):
        office.admitted(entry) if what == "admitted" else office.waits(entry)
    return office.told
