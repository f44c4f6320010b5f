"""An exact search for a place for all instances of a request, with a limit on its steps. Pure.

Host after host is given one of the combinations of instances to which nothing that is left could be added;
what one choice leaves unused is counted against what there is to spare. Equal instances are a count, and a
rest that has failed once is not tried again: neither equal instances nor equal hosts multiply the work. First
come other orders of the hosts, in which only the first combinations of each are looked at: where a place
exists, one of them usually finds it at once. (Bin completion: Korf, 2003.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from queues.needs import Need

#: What a host has, or what an instance takes: by resource, in one order.
Vector = tuple[int, ...]
#: How many of each size.
Counts = tuple[int, ...]
#: (waste, what a host is given, what is free on it then).
_Filling = tuple[float, Counts, Vector]
#: (its number, what it has free).
_Host = tuple[int, Vector]

#: Steps of one search, 2 to 4 us each; of requests with many sizes one counts for more.
STEPS: Final = 60_000
#: Steps of all searches of one decision, but for those that each has in any case.
TOGETHER: Final = 120_000
LEAST_STEPS: Final = 500
#: The same for what is only estimated: some 30 ms, in which it keeps nobody from being admitted.
ESTIMATED: Final = 10_000
#: Requests of more sizes, and on more hosts, are not searched for: a step would be too long.
_SIZES: Final = 64
_HOSTS: Final = 1000
#: Of its steps: what the whole search along one order has at first, and what each of the partial ones has.
_FIRST, _PART = 1 / 16, 1 / 32
#: Steps in which a partial one lists the combinations of a host; so many orders with each.
_LOOKED_AT: Final = (60, 200)
_ORDERS: Final = 6


class Patience:
    """What the searches of one decision may still cost: in steps, not in time, so that it can be repeated.

    Each may take half of what is left: who is first in line has most, and nobody has nothing.
    """

    def __init__(self, steps: int = TOGETHER) -> None:
        self._left = steps
        self.spent = 0

    def share(self) -> int:
        return max(LEAST_STEPS, min(STEPS, self._left // 2))

    def spend(self, steps: int) -> None:
        self._left -= steps
        self.spent += steps


@dataclass(frozen=True, slots=True)
class Found:
    """``where``: (number of the host, how many, number of the size); None: nowhere.

    ``sure``: all was tried; else there may be a place all the same.
    """

    where: tuple[tuple[int, int, int], ...] | None
    sure: bool
    steps: int


@lru_cache(maxsize=128)
def search(need: Need, names: tuple[str, ...], hosts: tuple[Vector, ...], steps: int) -> Found:
    """Look for a place for all instances. ``hosts``: what each has free of each of the resources ``names``.

    Remembered, because looks ask the same again until something has changed: it hangs on nothing else.
    """
    if len(need) > _SIZES or len(hosts) > _HOSTS:
        return Found(None, sure=False, steps=0)
    return _Search(need, names, hosts, steps).run()


class _OutOfSteps(Exception):
    pass


class _Search:
    def __init__(self, need: Need, names: tuple[str, ...], hosts: tuple[Vector, ...], steps: int) -> None:
        sizes = [tuple(dict(size).get(name, 0) for name in names) for _, size in need]
        wanted = [0] * len(names)
        for (count, _), size in zip(need, sizes, strict=True):
            wanted = [sum_ + count * amount for sum_, amount in zip(wanted, size, strict=True)]
        self.wanted = tuple(wanted)
        # The larger ones first: they fit rarely.
        self.numbers = sorted(range(len(need)), key=lambda number: self._share(sizes[number]), reverse=True)
        self.sizes = [sizes[number] for number in self.numbers]
        self.counts = tuple(need[number][0] for number in self.numbers)
        # More than is wanted in all makes no difference, nor does a host that takes no instance.
        cut = enumerate(tuple(map(min, host, wanted)) for host in hosts)
        self.hosts = [host for host in cut if any(_fits(size, host[1]) for size in self.sizes)]
        #: What may remain unused, in all.
        self.spare = tuple(
            sum(host[number] for _, host in self.hosts) - amount for number, amount in enumerate(wanted)
        )
        self.limit, self.steps, self.stop = steps, 0, 0
        self.cost = 1 + len(self.sizes) // 16
        #: Not all combinations were looked at.
        self.partial = False
        self.known: dict[tuple[Vector, Counts, int], tuple[list[_Filling], bool]] = {}

    def run(self) -> Found:
        if min(self.spare) < 0:
            return Found(None, sure=True, steps=0)
        # What is scarce is not to be wasted.
        self.weights = [
            1 / (spare + amount / len(self.hosts) / 4)
            for spare, amount in zip(self.spare, self.wanted, strict=True)
        ]
        small_first = sorted(self.hosts, key=lambda host: (sum(self._shares(host[1])), host[1]))
        failed: set[tuple[int, Counts]] = set()
        for order, looked_at, part in self._attempts(small_first):
            self.stop = min(self.limit, self.steps + int(self.limit * part))
            self.partial = False
            try:
                # What has failed along the same order, when all was looked at, has failed for good.
                where = self._along(order, looked_at, set() if looked_at else failed)
            except _OutOfSteps:
                continue
            if where is not None or not self.partial:
                return Found(where, sure=True, steps=self.steps)
        return Found(None, sure=False, steps=self.steps)

    @staticmethod
    def _attempts(hosts: list[_Host]) -> Iterator[tuple[list[_Host], int, float]]:
        """(Order of the hosts, steps for the combinations of one or 0 = all, share of all steps)."""
        yield hosts, 0, _FIRST
        alike: dict[Vector, list[_Host]] = {}
        for host in hosts:
            alike.setdefault(host[1], []).append(host)
        for looked_at in _LOOKED_AT:
            for number in range(_ORDERS):
                groups = list(alike.values())
                if number:
                    random.Random(number).shuffle(groups)  # noqa: S311  the same ones each time
                else:
                    groups.reverse()
                yield [host for group in groups for host in group], looked_at, _PART
        yield hosts, 0, 1.0

    def _along(
        self, hosts: list[_Host], looked_at: int, failed: set[tuple[int, Counts]]
    ) -> tuple[tuple[int, int, int], ...] | None:
        """Host after host in this order, depth first; None: nowhere among what was looked at."""
        rooms, slots = self._behind(hosts)
        chosen: list[Counts] = []
        lefts, wants = [self.counts], [self.wanted]
        tries = [iter(self._fillings(hosts[0][1], self.counts, looked_at))]
        while tries:
            filling = next(tries[-1], None)
            if filling is None:
                tries.pop()
                wants.pop()
                failed.add((len(tries), lefts.pop()))
                if chosen:
                    chosen.pop()
                continue
            self._step()
            _, given, free = filling
            depth, host = len(tries), hosts[len(tries) - 1][1]
            left = tuple(map(int.__sub__, lefts[-1], given))
            if not any(left):
                return self._told(hosts, [*chosen, given])
            want = tuple(want - had + has for want, had, has in zip(wants[-1], host, free, strict=True))
            if (
                depth == len(hosts)
                or any(map(int.__gt__, want, rooms[depth]))
                or any(map(int.__gt__, left, slots[depth]))
                or (depth, left) in failed
            ):
                continue
            chosen.append(given)
            lefts.append(left)
            wants.append(want)
            tries.append(iter(self._fillings(hosts[depth][1], left, looked_at)))
        return None

    def _behind(self, hosts: list[_Host]) -> tuple[list[Vector], list[Counts]]:
        """Of each host with all behind it: what they have free, and how many of each size they take."""
        self._step(len(hosts) // 8)
        rooms: list[Vector] = [(0,) * len(self.wanted)]
        slots: list[Counts] = [(0,) * len(self.sizes)]
        for _, free in reversed(hosts):
            rooms.append(tuple(map(int.__add__, rooms[-1], free)))
            slots.append(tuple(map(int.__add__, slots[-1], [_fits(size, free) for size in self.sizes])))
        return rooms[::-1], slots[::-1]

    def _told(self, hosts: list[_Host], chosen: list[Counts]) -> tuple[tuple[int, int, int], ...]:
        return tuple(
            (hosts[at][0], count, self.numbers[size])
            for at, given in enumerate(chosen)
            for size, count in enumerate(given)
            if count
        )

    def _fillings(self, free: Vector, left: Counts, looked_at: int) -> list[_Filling]:
        """What a host can be given of what is left, so that no more goes there; the least waste first."""
        most = tuple(min(count, _fits(size, free)) for count, size in zip(left, self.sizes, strict=True))
        key = (free, most, looked_at)
        if key not in self.known:
            self.known[key] = self._listed(free, most, looked_at)
        found, whole = self.known[key]
        self.partial |= not whole
        return found

    def _listed(self, free: Vector, most: Counts, looked_at: int) -> tuple[list[_Filling], bool]:
        # No host may waste more than there is to spare in all, even when all that could follow go there.
        bounds: list[Vector] = [self.spare]
        for count, size in zip(reversed(most), reversed(self.sizes), strict=True):
            bounds.append(tuple(sum_ + count * amount for sum_, amount in zip(bounds[-1], size, strict=True)))
        bounds.reverse()
        found: list[_Filling] = []
        given, stop, whole = [0] * len(most), self.steps + looked_at * self.cost, True

        def go(at: int, free: Vector) -> None:
            nonlocal whole
            self._step()
            if looked_at and self.steps > stop:
                whole = False
            elif any(map(int.__gt__, free, bounds[at])):
                return
            elif at < len(most):
                size = self.sizes[at]
                for count in range(min(most[at], _fits(size, free)), -1, -1):
                    given[at] = count
                    go(at + 1, tuple([has - count * takes for has, takes in zip(free, size, strict=True)]))
            elif not self._takes_more(given, most, free):
                waste = sum(weight * has for weight, has in zip(self.weights, free, strict=True))
                found.append((waste, tuple(given), free))

        go(0, free)
        return sorted(found), whole

    def _takes_more(self, given: Sequence[int], most: Counts, free: Vector) -> bool:
        return any(
            count < limit and _fits(size, free)
            for count, limit, size in zip(given, most, self.sizes, strict=True)
        )

    def _shares(self, amounts: Vector) -> list[float]:
        return [amount / all_ for amount, all_ in zip(amounts, self.wanted, strict=True)]

    def _share(self, size: Vector) -> float:
        return max(self._shares(size))

    def _step(self, more: int = 0) -> None:
        self.steps += self.cost + more
        if self.steps > self.stop:
            raise _OutOfSteps


def _fits(size: Vector, free: Vector) -> int:
    return min([here // amount for amount, here in zip(size, free, strict=True) if amount])
