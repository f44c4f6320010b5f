"""A plain model of the decision, written from the contract and not from the code.

It knows single entries only, no classes. Of the entries in order it admits the first one that may go, and
starts over: what was admitted may have changed whose turn it is. It fits by trying all placements. Where the
contract leaves a choice (which of several aggregates, which host) it follows what was done, and checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from queues.admission.terms import Admission, Aggregate, Class, Head, Level, Reservation, Snapshot
from queues.needs import Need
from tests.unit.queues.deciding import most_placed


@dataclass(frozen=True)
class One:
    """A waiting entry."""

    id: int
    cls: Class
    head: Head

    @property
    def owner(self) -> tuple[int, str]:
        return self.cls.queue, self.cls.owner

    @property
    def place(self) -> tuple[int, str]:
        return self.head.priority, self.head.tie

    def wants(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for count, size in self.cls.need:
            for name, amount in size:
                found[name] = found.get(name, 0) + count * amount
        return found


def holds(need: Need, hosts: Sequence[Any]) -> bool:
    return _holds(need, tuple(tuple(sorted(host.items())) for host in hosts))


@lru_cache(maxsize=100_000)
def _holds(need: Need, hosts: tuple[tuple[tuple[str, int], ...], ...]) -> bool:
    return most_placed(need, [dict(host) for host in hosts]) == sum(count for count, _ in need)


class Model:
    """What is free and held while the steps of a decision are replayed; ``told``: its reservation."""

    def __init__(self, now: Snapshot, told: Reservation | None) -> None:
        self.now, self.told = now, told
        self.waiting = [One(head.id, cls, head) for cls in now.classes for head in cls.heads]
        self.free = {each.name: {host.id: dict(host.free) for host in each.hosts} for each in now.aggregates}
        self.held = {key: dict(value) for key, value in now.held.items()}
        self.shares = {key: dict(value) for key, value in now.shares.items()}
        self.levels: dict[int, Level] = {}
        self.kept: tuple[One, str] | None = self._still_kept()

    def _still_kept(self) -> tuple[One, str] | None:
        told = self.now.reservation
        one = next((each for each in self.waiting if told and each.id == told.entry), None)
        if self.now.strict or told is None or one is None or told.aggregate not in self.bounded(one):
            return None
        mine = [each for each in self.waiting if each.cls.queue == one.cls.queue and each.place <= one.place]
        hopeful = [each.id for each in mine if self.bounded(each) and not self.over(each)]
        return (one, told.aggregate) if hopeful == [one.id] else None

    def could(self, one: One) -> list[str]:
        return [
            each.name for each in self.allowed(one) if holds(one.cls.need, [h.largest for h in each.hosts])
        ]

    def bounded(self, one: One) -> list[str]:
        """Where it has room for sure once everything there has ended."""
        return [
            each.name
            for each in self.allowed(one)
            if each.name in self.could(one) and holds(one.cls.need, [host.total for host in each.hosts])
        ]

    def allowed(self, one: One) -> list[Aggregate]:
        return [
            each
            for each in self.now.aggregates
            if (one.cls.bound in {"", each.name}) and (each.tenants is None or one.cls.tenant in each.tenants)
        ]

    def over(self, one: One, *others: One) -> bool:
        quota, held = self.now.quotas.get(one.owner, {}), self.held.get(one.owner, {})
        sums = {name: held.get(name, 0) + sum(each.wants().get(name, 0) for each in others) for name in quota}
        return any(
            sums[name] + one.wants().get(name, 0) > quota[name] for name in quota if name in one.wants()
        )

    def share(self, queue: int) -> float:
        there: dict[str, int] = {}
        for each in self.now.aggregates:
            for host in each.hosts:
                for name, amount in host.total.items():
                    there[name] = there.get(name, 0) + amount
        parts = [
            amount / there[name] for name, amount in self.shares.get(queue, {}).items() if there.get(name)
        ]
        return max(parts, default=0.0)

    def next(self) -> tuple[One, list[str]] | None:
        """The entry that is admitted next and where it may go. Tells of the others why they wait."""
        kept = self.kept
        found = self._pass()
        if found is None and self.kept != kept:
            return self._pass()  # also those that were looked at before wait for that one now
        return found

    def _pass(self) -> tuple[One, list[str]] | None:
        self.levels = {}
        closed: dict[str, One] = {}
        stopped: set[tuple[int, str]] = set()
        lines: dict[int, list[One]] = {}
        for one in sorted(self.waiting, key=lambda each: each.place):
            if self.could(one):
                lines.setdefault(one.cls.queue, []).append(one)
            else:
                self.levels[one.id] = self._hopeless(one)
        turns = sorted(lines, key=lambda queue: (self.share(queue), lines[queue][0].head.since, queue))
        for one in (one for queue in turns for one in lines[queue]):
            where = self._try(one, closed, stopped)
            if where:
                return one, where
        return None

    def _try(self, one: One, closed: dict[str, One], stopped: set[tuple[int, str]]) -> list[str]:
        could, quota = self.could(one), self.now.quotas.get(one.owner, {})
        if self.kept:
            closed[self.kept[1]] = self.kept[0]
        if self.over(one):
            self.levels[one.id] = Level.OVER_QUOTA
            if self.now.strict and all(one.wants().get(name, 0) <= quota[name] for name in quota):
                stopped.add(one.owner)
        elif one.owner in stopped or self._needs_kept_quota(one):
            self.levels[one.id] = Level.BEHIND
        else:
            fits = [name for name in could if holds(one.cls.need, list(self.free[name].values()))]
            where = [name for name in fits if closed.get(name, one) == one]
            if where:
                return where
            in_its_way = bool(fits) or all(closed.get(name, one) != one for name in could)
            self.levels[one.id] = Level.BEHIND if in_its_way else Level.NO_CAPACITY
            if self.now.strict:
                for name in could:
                    closed.setdefault(name, one)
            elif self.kept is None:
                self._reserve(one)
        return []

    def _hopeless(self, one: One) -> Level:
        """Of what can go nowhere: it takes no turn."""
        known = [
            all(any(host.largest.get(name) for host in each.hosts) for name in one.wants())
            for each in self.allowed(one)
        ]
        return Level.NEVER_FITS if any(known) else Level.MISCONFIGURED

    def _needs_kept_quota(self, one: One) -> bool:
        if self.kept is None or self.kept[0] == one or self.kept[0].owner != one.owner:
            return False
        return self.over(one, self.kept[0])

    def _reserve(self, one: One) -> None:
        bounded = self.bounded(one)
        if bounded:
            assert self.told is not None
            assert self.told.entry == one.id
            assert self.told.aggregate in bounded
            if len(one.cls.need) == 1:  # of one size what lacks least is plain
                placed = {name: most_placed(one.cls.need, list(self.free[name].values())) for name in bounded}
                assert placed[self.told.aggregate] == max(placed.values())
            self.kept = (one, self.told.aggregate)

    def admit(self, one: One, step: Admission) -> None:
        """Take what the decision takes, after a look at whether it may."""
        given_: dict[Any, int] = {}
        for id_, count, size in step.places:
            given_[size] = given_.get(size, 0) + count
            for name, amount in size:
                self.free[step.aggregate][id_][name] -= count * amount
                assert self.free[step.aggregate][id_][name] >= 0
        assert given_ == {size: count for count, size in one.cls.need}
        for name, amount in one.wants().items():
            for held in (self.held.setdefault(one.owner, {}), self.shares.setdefault(one.cls.queue, {})):
                held[name] = held.get(name, 0) + amount
            quota = self.now.quotas.get(one.owner, {}).get(name)
            assert quota is None or self.held[one.owner][name] <= quota
        self.waiting.remove(one)
        if self.kept and self.kept[0] == one:
            self.kept = None
