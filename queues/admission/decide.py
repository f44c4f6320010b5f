"""THE decision: which waiting entries are admitted now, and why the others are not. Pure.

The admission loop, explanations and simulations call the same function with a snapshot each.

Order: a tenant's entries by (Priority, hidden key); between tenants the one that holds the smaller share of
what there is goes first. An entry that cannot be admitted is set aside when that is its own business (it
never fits, or its owner's quota is used up); otherwise it blocks: in mode ``strict`` every aggregate where it
could go, in mode ``best_effort`` one aggregate, and only as the first such entry. Source: contract page 50.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from queues.admission import packing
from queues.needs import Need, Size, total

#: Most entries that one decision admits.
MOST: Final = 100


class Level(StrEnum):
    """Why an entry waits. The strongest first: what somebody has to change comes before time."""

    PROVIDER = "provider"  # what there is cannot be told now
    MISCONFIGURED = "misconfigured"  # there is no aggregate where it may go, or none with such a resource
    NEVER_FITS = "never_fits"  # larger than the largest there ever was
    OVER_QUOTA = "over_quota"  # its owner holds as much as it may
    BEHIND = "behind"  # somebody before it blocks where it could go
    NO_CAPACITY = "no_capacity"  # what is free does not suffice
    EVALUATING = "evaluating"  # nothing is in its way: the next look admits it


@dataclass(frozen=True)
class Host:
    """``free`` may be below 0; ``largest`` is the most there ever was."""

    id: int
    name: str
    free: Mapping[str, int]
    total: Mapping[str, int]
    largest: Mapping[str, int]


@dataclass(frozen=True)
class Aggregate:
    """``tenants``: ids of those who may use it; None = all. A removed one has no host with anything free."""

    name: str
    hosts: tuple[Host, ...]
    tenants: frozenset[int] | None = None
    removed: bool = False


@dataclass(frozen=True)
class Head:
    """A waiting entry, as far as it matters here."""

    id: int
    priority: int
    tie: str
    #: Seconds since 1970.
    since: float = 0.0


@dataclass(frozen=True)
class Class:
    """Entries that are the same to admission. ``heads``: the first of them, in order; ``count``: all."""

    id: int
    queue: int
    tenant: int
    owner: str
    need: Need
    bound: str
    heads: tuple[Head, ...]
    count: int


@dataclass(frozen=True)
class Reservation:
    """Best effort: this aggregate is kept for this entry. ``since``: seconds since 1970."""

    entry: int
    aggregate: str
    since: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """All that a decision depends on. ``held`` and ``quotas``: (queue, owner) -> {resource: amount}."""

    strict: bool
    aggregates: tuple[Aggregate, ...]
    classes: tuple[Class, ...]
    held: Mapping[tuple[int, str], Mapping[str, int]] = field(default_factory=dict)
    quotas: Mapping[tuple[int, str], Mapping[str, int]] = field(default_factory=dict)
    #: Queue -> what all its owners hold, also those of whom nothing waits.
    shares: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    reservation: Reservation | None = None
    #: Why nothing can be known of the capacity; "" = it is known.
    trouble: str = ""
    #: More classes wait than are looked at.
    approximate: bool = False


@dataclass(frozen=True)
class Admission:
    """One entry that is admitted: where each of its instances goes."""

    entry: int
    cls: Class
    aggregate: str
    #: (id of the host, how many, size).
    places: tuple[tuple[int, int, Size], ...]


@dataclass(frozen=True)
class Verdict:
    """Why the first entry of a class that was not admitted waits."""

    level: Level
    #: Names of the aggregates where it could ever go.
    candidates: tuple[str, ...] = ()
    #: The entry that blocks it, where one does.
    blocked_by: int | None = None
    #: Over quota: the resource.
    resource: str = ""


@dataclass(frozen=True)
class Decision:
    """``more``: the next look, at once, can admit more. ``verdicts``: class id -> why its next one waits."""

    admitted: tuple[Admission, ...]
    verdicts: Mapping[int, Verdict]
    reservation: Reservation | None
    more: bool


def decide(snapshot: Snapshot, most: int = MOST) -> Decision:
    """Admit what can be admitted, at most so many; the same snapshot always gives the same decision."""
    return _Round(snapshot).run(most)


class _Round:
    """The working copy of one decision: what is free, held and closed as it goes on."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.aggregates = {aggregate.name: aggregate for aggregate in snapshot.aggregates}
        self.free = {
            name: [dict(host.free) for host in aggregate.hosts] for name, aggregate in self.aggregates.items()
        }
        self.held = {key: dict(amounts) for key, amounts in snapshot.held.items()}
        self.shares = {queue: dict(amounts) for queue, amounts in snapshot.shares.items()}
        self.capacity = _capacity(snapshot)
        #: Aggregate -> the entry that keeps others out of it.
        self.closed: dict[str, int] = {}
        #: Strict: (queue, owner) whose first entry waits for its quota -> that entry.
        self.stopped: dict[tuple[int, str], int] = {}
        self.reservation: Reservation | None = None
        self.admitted: list[Admission] = []
        self.verdicts: dict[int, Verdict] = {}
        self._fit: dict[tuple[Need, str], packing.Placement | None] = {}
        self._ever: dict[tuple[Need, str], bool] = {}

    def run(self, most: int) -> Decision:
        if self.snapshot.trouble:
            verdicts = {each.id: Verdict(Level.PROVIDER) for each in self.snapshot.classes}
            return Decision((), verdicts, self.snapshot.reservation, False)
        lines = _Lines(self.snapshot.classes, self.share)
        kept = self._kept_reservation(lines)
        if kept is not None:
            self._reserve(kept)
        more = False
        while (found := lines.next()) is not None:
            cls, head = found
            if len(self.admitted) == most:
                more = True
                break
            verdict = self._try(cls, head)
            if verdict is not None:
                self.verdicts[cls.id] = verdict
                lines.drop(cls)
            elif not lines.advance(cls):
                more = True  # the rest of the class is not in the snapshot, and may be next in line
                break
        for cls in self.snapshot.classes:
            if cls.id not in self.verdicts and lines.waits(cls):
                self.verdicts[cls.id] = Verdict(Level.EVALUATING)
        return Decision(tuple(self.admitted), self.verdicts, self.reservation, more)

    def share(self, queue: int) -> float:
        """The dominant share of what a queue's entries hold, of all there is."""
        held = self.shares.get(queue, {})
        return max(
            (amount / self.capacity[name] for name, amount in held.items() if self.capacity.get(name)),
            default=0.0,
        )

    def _kept_reservation(self, lines: _Lines) -> Reservation | None:
        """The reservation of before, if its entry is still the first of its tenant that can ever go."""
        kept = self.snapshot.reservation
        if self.snapshot.strict or kept is None:
            return None
        cls = next(
            (each for each in self.snapshot.classes if each.heads and each.heads[0].id == kept.entry), None
        )
        if cls is None or kept.aggregate not in self._candidates(cls) or self._over(cls):
            return None
        for other, _ in lines.before(cls):
            if self._candidates(other) and not self._over(other):
                return None
        return kept

    def _reserve(self, reservation: Reservation) -> None:
        self.reservation = reservation
        self.closed[reservation.aggregate] = reservation.entry

    def _try(self, cls: Class, head: Head) -> Verdict | None:
        """Admit an entry (None), or say why not and close what it blocks."""
        candidates = self._candidates(cls)
        if not candidates:
            return Verdict(self._hopeless(cls))
        if resource := self._over(cls):
            if (
                self.snapshot.strict
                and total(cls.need)[resource] <= self.snapshot.quotas[cls.queue, cls.owner][resource]
            ):
                self.stopped.setdefault((cls.queue, cls.owner), head.id)
            return Verdict(Level.OVER_QUOTA, candidates, resource=resource)
        stopped = self.stopped.get((cls.queue, cls.owner))
        if stopped is not None:
            return Verdict(Level.BEHIND, candidates, stopped)
        open_ = [name for name in candidates if self.closed.get(name, head.id) == head.id]
        fitting = [name for name in open_ if self._place(cls.need, name) is not None]
        if fitting:
            self._admit(cls, head, min(fitting, key=self._room))
            return None
        behind = self._blocker(cls, candidates, open_)
        self._block(cls, head, candidates)
        if behind is not None:
            return Verdict(Level.BEHIND, candidates, behind)
        return Verdict(Level.NO_CAPACITY, candidates)

    def _blocker(self, cls: Class, candidates: tuple[str, ...], open_: list[str]) -> int | None:
        """Who is in its way: whoever closed an aggregate in which it would fit, or closed all of them."""
        closed = [name for name in candidates if name not in open_]
        in_its_way = [name for name in closed if self._place(cls.need, name) is not None]
        if in_its_way or not open_:
            return self.closed[(in_its_way or closed)[0]]
        return None

    def _block(self, cls: Class, head: Head, candidates: tuple[str, ...]) -> None:
        if self.snapshot.strict:
            for name in candidates:
                self.closed.setdefault(name, head.id)
        elif self.reservation is None:
            least = min(candidates, key=lambda name: self._lack(cls.need, name))
            self._reserve(Reservation(head.id, least))

    def _admit(self, cls: Class, head: Head, name: str) -> None:
        hosts, placed = self.aggregates[name].hosts, self._place(cls.need, name)
        if placed is None:
            raise ValueError(f"{name} does not hold {cls.need}")
        for index, count, size in placed:
            for resource, amount in size:
                self.free[name][index][resource] -= count * amount
        for key in [key for key in self._fit if key[1] == name]:
            del self._fit[key]
        for amounts in (
            self.held.setdefault((cls.queue, cls.owner), {}),
            self.shares.setdefault(cls.queue, {}),
        ):
            for resource, amount in total(cls.need).items():
                amounts[resource] = amounts.get(resource, 0) + amount
        if self.reservation is not None and self.reservation.entry == head.id:
            self.closed.pop(self.reservation.aggregate, None)
            self.reservation = None
        places = tuple((hosts[index].id, count, size) for index, count, size in placed)
        self.admitted.append(Admission(head.id, cls, name, places))

    def _candidates(self, cls: Class) -> tuple[str, ...]:
        """Where an entry of this class could go if nothing ran there."""
        return tuple(
            name
            for name in sorted(self.aggregates)
            if self._may(cls, name) and self._could_ever(cls.need, name)
        )

    def _may(self, cls: Class, name: str) -> bool:
        tenants = self.aggregates[name].tenants
        return cls.bound in ("", name) and (tenants is None or cls.tenant in tenants)

    def _could_ever(self, need: Need, name: str) -> bool:
        key = (need, name)
        if key not in self._ever:
            largest = [host.largest for host in self.aggregates[name].hosts]
            self._ever[key] = packing.place(need, largest) is not None
        return self._ever[key]

    def _hopeless(self, cls: Class) -> Level:
        """It can go nowhere: because there is no such place or resource, or because it is too large."""
        known = [self.aggregates[name] for name in self.aggregates if self._may(cls, name)]
        for aggregate in known:
            names = {name for host in aggregate.hosts for name, amount in host.largest.items() if amount}
            if all(resource in names for resource in total(cls.need)):
                return Level.NEVER_FITS
        return Level.MISCONFIGURED

    def _over(self, cls: Class) -> str:
        """The resource of which its owner would hold more than its quota; "" = none."""
        quotas = self.snapshot.quotas.get((cls.queue, cls.owner))
        if not quotas:
            return ""
        held, wanted = self.held.get((cls.queue, cls.owner), {}), total(cls.need)
        return next(
            (
                name
                for name in sorted(quotas)
                if wanted.get(name) and held.get(name, 0) + wanted[name] > quotas[name]
            ),
            "",
        )

    def _place(self, need: Need, name: str) -> packing.Placement | None:
        key = (need, name)
        if key not in self._fit:
            self._fit[key] = packing.place(need, self.free[name])
        return self._fit[key]

    def _room(self, name: str) -> tuple[float, str]:
        """How much is free in an aggregate, as a share of all: the fullest that suffices is taken."""
        return (
            sum(
                max(amount, 0) / self.capacity[key]
                for host in self.free[name]
                for key, amount in host.items()
                if self.capacity.get(key)
            ),
            name,
        )

    def _lack(self, need: Need, name: str) -> tuple[int, float, str]:
        """How far an aggregate is from holding a request: instances without a host, and the missing share."""
        short = sum(
            max(0, amount - sum(max(host.get(key, 0), 0) for host in self.free[name]))
            / max(1, self.capacity.get(key, 1))
            for key, amount in total(need).items()
        )
        return packing.missing(need, self.free[name]), short, name


class _Lines:
    """The waiting classes in the order in which their entries are looked at."""

    def __init__(self, classes: tuple[Class, ...], share: object) -> None:
        self._share = share
        self._at = {cls.id: 0 for cls in classes}
        self._dropped: set[int] = set()
        self._classes = {cls.id: cls for cls in classes}
        self._queues: dict[int, list[tuple[int, str, int]]] = {}
        for cls in classes:
            if cls.heads:
                self._queues.setdefault(cls.queue, []).append(self._key(cls))
        for queue in self._queues.values():
            heapq.heapify(queue)

    def _key(self, cls: Class) -> tuple[int, str, int]:
        head = cls.heads[self._at[cls.id]]
        return head.priority, head.tie, cls.id

    def next(self) -> tuple[Class, Head] | None:
        """The entry whose turn it is; None = nobody is left."""
        queues = [queue for queue, line in self._queues.items() if line]
        if not queues:
            return None
        queue = min(queues, key=lambda each: (self._share(each), self._first(each).since, each))  # type: ignore[operator]
        cls = self._classes[self._queues[queue][0][2]]
        return cls, self._first(queue)

    def _first(self, queue: int) -> Head:
        cls = self._classes[self._queues[queue][0][2]]
        return cls.heads[self._at[cls.id]]

    def drop(self, cls: Class) -> None:
        """Nothing more of this class, whose first entry is the one that ``next`` gave."""
        heapq.heappop(self._queues[cls.queue])
        self._dropped.add(cls.id)

    def advance(self, cls: Class) -> bool:
        """Its first entry is admitted; False when the next one is not in the snapshot."""
        heapq.heappop(self._queues[cls.queue])
        self._at[cls.id] += 1
        if self._at[cls.id] < len(cls.heads):
            heapq.heappush(self._queues[cls.queue], self._key(cls))
            return True
        return cls.count <= len(cls.heads)

    def waits(self, cls: Class) -> bool:
        """Whether an entry of it has not been admitted."""
        return self._at[cls.id] < cls.count

    def before(self, cls: Class) -> list[tuple[Class, Head]]:
        """The classes of its queue whose first entry stands before its own."""
        mine = self._key(cls)
        keys = sorted(key for key in self._queues.get(cls.queue, []) if key < mine)
        return [(self._classes[key[2]], self._classes[key[2]].heads[0]) for key in keys]


def _capacity(snapshot: Snapshot) -> dict[str, int]:
    """All there is of each resource."""
    found: dict[str, int] = {}
    for aggregate in snapshot.aggregates:
        for host in aggregate.hosts:
            for name, amount in host.total.items():
                found[name] = found.get(name, 0) + amount
    return found
