"""The decision, run forward in virtual time until the entry asked about is admitted. Pure.

Next end, what it frees, decide, and so on, over a few sampled futures. A future is a run time for each entry;
the draws are fixed by the ids of the entry asked about and of the one that runs, and stratified over the
futures, so that the same question has the same answer and few futures do. Who comes later is left out: in
strict mode nobody passes but by a move or with another tenant's share; in best effort smaller ones may, and
what that costs is left to the calibration. Where more are ahead than a future plays through, the rest is
extrapolated by the work ahead.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from queues.admission.asked import ASKED, Asked
from queues.admission.decide import Admission, Candidates, Class, Head
from queues.admission.search import ESTIMATED, Patience
from queues.admission.space import Ever
from queues.estimates.rolling import Rolling
from queues.estimates.runtimes import RunTimes
from queues.needs import Need, total

#: A power of two.
FUTURES: Final = 16
#: Units of work of one estimate; about 30 us each.
BUDGET: Final = 1600
#: Beyond this many seconds no further future is begun.
DEADLINE_S: Final = 0.08
#: Fewer futures than this tell nothing.
_FEWEST: Final = 4
#: Ends that one future plays through at most.
_EVENTS: Final = 3000
#: Entries that a future plays through at the least.
_LEAST: Final = 3
#: Classes of each queue that a decision sees where the first one does not block all others.
_WINDOW: Final = 32


@dataclass(frozen=True)
class Running:
    """A running entry: ``age`` in s, ``cap`` the declared duration, ``holds``: (host, resource, amount)."""

    id: int
    queue: int
    owner: str
    need: Need
    age: float
    cap: float | None
    holds: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Scene:
    """What a forecast depends on. ``ahead``: how many of its own queue are before the entry asked about.

    ``caps``: entry -> declared duration, of those of the waiting ones that have one.
    """

    asked: Asked
    ahead: int
    running: Sequence[Running]
    runtimes: RunTimes
    caps: Mapping[int, float]


@dataclass(frozen=True)
class Forecast:
    """Waits in s from now, one a future, sorted; infinite where what ends does not suffice."""

    waits: tuple[float, ...]
    #: The queue is longer than what was played through.
    extrapolated: bool


def forecast(
    scene: Scene, budget: int = BUDGET, deadline_s: float = DEADLINE_S, pause_s: float = 0.0
) -> Forecast | None:
    """Play the futures; None where a run time is needed of which nothing is known.

    ``pause_s``: for so long other threads of the process go first, every millisecond or so.
    """
    stop = time.monotonic() + deadline_s
    play = _Play(scene, budget, pause_s)
    found: list[tuple[float, float]] = []
    for future in range(FUTURES):
        outcome = _Future(play, future).run()
        if outcome is None:
            return None
        found.append(outcome)
        if time.monotonic() > stop and len(found) >= _FEWEST:
            break
    waits = [wait for wait, _ in found]
    stretch = sum(ratio for _, ratio in found) / len(found)
    if stretch > 1.0 and max(waits) < float("inf"):
        # A sum of many has a smaller spread, by the root, than a part of it has that is multiplied.
        middle = sum(waits) / len(waits)
        waits = [max(0.0, middle + (wait - middle) / stretch**0.5) for wait in waits]
    return Forecast(tuple(sorted(waits)), stretch > 1.0)


class _Play:
    """What all futures share: the lines of the waiting, each entry a class of its own."""

    def __init__(self, scene: Scene, budget: int, pause_s: float = 0.0) -> None:
        self.scene, self.pause_s = scene, pause_s
        self.snapshot = seen = scene.asked.snapshot
        self.ever: Ever = {}
        self.candidates: Candidates = {}
        self.patience = Patience(ESTIMATED)
        round_ = Rolling(seen, self.ever, self.candidates, self.patience)
        #: What can go nowhere blocks nobody.
        self.classes = [each for each in seen.classes if round_.goes_somewhere(each)]
        #: The first entry of a queue blocks all others.
        self.plain = seen.strict and round_.alike(self.classes)
        #: Classes of each queue that a decision sees: the first one is enough where it blocks all others.
        self.window = 1 if self.plain else min(_WINDOW, len(self.classes))
        hosts = sum(len(each.hosts) for each in seen.aggregates)
        unit = (1 + hosts / 16) * (1 + self.window / 8)
        #: Ends after which others may go first.
        self.breath = max(1, int(32 / unit))
        #: Entries of its queue that a future plays through.
        self.depth = max(_LEAST, int(budget / FUTURES / unit))
        self.totals: dict[Need, dict[str, int]] = {}
        self.capacity = seen.capacity()
        #: What stands for one entry -> the class that it is of.
        self.kin: dict[int, int] = {}
        self.lines, known = self._lined_up()
        self.work_ahead = sum(map(self.work, known)) * max(1.0, scene.ahead / max(1, len(known)))
        self.work_ahead += self.work(scene.asked.cls)

    def _lined_up(self) -> tuple[dict[int, list[Class]], list[Class]]:
        """Queue -> its first entries in order, and those known to be before the one asked about.

        In strict mode nobody behind that one; it is not there itself when more are before it than are known.
        """
        asked = self.scene.asked
        mine = (asked.head.priority, asked.head.tie)
        found: dict[int, list[tuple[int, str, int, Class, Head]]] = {asked.cls.queue: []}
        before = []
        for cls in self.classes:
            for head in cls.heads:
                if cls.queue == asked.cls.queue and cls.id != ASKED:
                    if (head.priority, head.tie) < mine:
                        before.append(cls)
                    elif self.snapshot.strict:
                        break
                found.setdefault(cls.queue, []).append((head.priority, head.tie, cls.id, cls, head))
        if 0 < len(before) < self.scene.ahead:
            found[asked.cls.queue] = [each for each in found[asked.cls.queue] if each[:2] < mine]
        most = self.depth + 1 if self.plain else None
        return {
            queue: [self._single(cls, head) for _, _, _, cls, head in sorted(line, key=_place)[:most]]
            for queue, line in found.items()
        }, before

    def _single(self, cls: Class, head: Head) -> Class:
        """A class of one entry, in ids below that of the entry asked about.

        A count of two ends a decision when it is admitted: the next one of its class may be the next in line.
        """
        id_ = ASKED if cls.id == ASKED else ASKED - 1 - head.id
        self.kin[id_] = cls.id
        return replace(cls, id=id_, heads=(head,), count=2)

    def seen(self, lines: Iterable[list[Class]]) -> tuple[Class, ...]:
        """The first entry of each class, of each queue's first classes: the others fare no better."""
        found: list[Class] = []
        for line in lines:
            kin: set[int] = set()
            for cls in line:
                if self.kin[cls.id] not in kin:
                    kin.add(self.kin[cls.id])
                    found.append(cls)
                    if len(kin) == self.window:
                        break
        return tuple(found)

    def work(self, cls: Class) -> float:
        """What an entry takes of all there is, for how long."""
        wanted = self.total(cls.need)
        share = max(amount / (self.capacity.get(name) or amount) for name, amount in wanted.items())
        return share * self.scene.runtimes.mean(cls.owner, cls.need)

    def total(self, need: Need) -> dict[str, int]:
        if need not in self.totals:
            self.totals[need] = total(need)
        return self.totals[need]


class _Future:
    """One sampled future as it goes on."""

    def __init__(self, play: _Play, number: int) -> None:
        self.play, self.number = play, number
        self.round = Rolling(play.snapshot, play.ever, play.candidates, play.patience)
        self.lines = {queue: list(line) for queue, line in play.lines.items()}
        self.now = 0.0
        self.admitted, self.work = 0, 0.0
        self.ends: list[tuple[float, int, Running]] = []

    def run(self) -> tuple[float, float] | None:
        """The wait, and by how much what was played through was stretched (1 = not); None: cannot be told."""
        play = self.play
        for each in play.scene.running:
            if not self._begin(each):
                return None
        mine = self.lines[play.scene.asked.cls.queue]
        for number in range(_EVENTS):
            if play.pause_s and number % play.breath == 0:
                time.sleep(play.pause_s)
            turn = self._decide()
            if turn is None or turn:
                return None if turn is None else (self.now, 1.0)
            if self.admitted >= play.depth or not mine:
                break
            if not self.ends:
                return float("inf"), 1.0
            self.now, _, entry = heapq.heappop(self.ends)
            self.round.ended(entry.queue, entry.owner, play.total(entry.need), entry.holds)
        if not self.admitted:
            return float("inf"), 1.0
        # What is still ahead takes as long for its work as what was played through.
        ratio = max(1.0, play.work_ahead / self.work)
        return self.now * ratio, ratio

    def _decide(self) -> bool | None:
        """Admit until nothing more goes. True: it was the entry's turn; None: a run time is missing."""
        more = True
        while more:
            admitted, more = self._admitted()
            for each in admitted:
                if each.cls.id == ASKED:
                    return True
                if not self._admit(each):
                    return None
        return False

    def _admitted(self) -> tuple[list[Admission], bool]:
        if self.play.plain and len(self.lines) == 1:
            line = self.lines[self.play.scene.asked.cls.queue]
            found = self.round.first(line[0]) if line else None
            return ([], False) if found is None else ([found], True)
        return self.round.again(self.play.seen(self.lines.values()))

    def _admit(self, admission: Admission) -> bool:
        cls = admission.cls
        self.lines[cls.queue].remove(cls)
        if cls.queue == self.play.scene.asked.cls.queue:
            self.admitted += 1
            self.work += self.play.work(cls)
        holds = tuple(
            (host, name, count * amount) for host, count, size in admission.places for name, amount in size
        )
        cap = self.play.scene.caps.get(admission.entry)
        return self._begin(Running(admission.entry, cls.queue, cls.owner, cls.need, 0.0, cap, holds))

    def _begin(self, entry: Running) -> bool:
        u = uniform(self.play.scene.asked.head.id, entry.id, self.number)
        total = self.play.scene.runtimes.draw(entry.owner, entry.need, entry.age, u, entry.cap)
        if total is None:
            return False
        heapq.heappush(self.ends, (self.now + total - entry.age, entry.id, entry))
        return True


def _place(known: tuple[int, str, int, Class, Head]) -> tuple[int, str, int]:
    return known[:3]


#: Permutations of the strata, of which each pair of entries takes one.
_PERMUTATIONS: Final = tuple(
    tuple(random.Random(seed).sample(range(FUTURES), FUTURES))  # noqa: S311
    for seed in range(256)
)


def uniform(salt: int, entry: int, future: int) -> float:
    """In [0, 1): over the futures of one entry each sixteenth once. Fixed by the three numbers."""
    mixed = (entry * 0x9E3779B97F4A7C15 + salt * 0xC2B2AE3D27D4EB4F) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    within = ((mixed >> 40) + future * 0x9E3779) & 0xFFFFFF
    return (_PERMUTATIONS[(mixed >> 32) & 255][future] + within / 0x1000000) / FUTURES
