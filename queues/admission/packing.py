"""Whether all instances of a request fit on the hosts of one aggregate, and where. Pure.

Instances of one size are placed exactly. Of several sizes the larger are placed first, in a few orders; where
that fails, an exact search (queues.admission.search) goes on for a limited number of steps. Where it was
ended, the answer is that it is not known: never that there is no place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from queues.admission.search import Patience, search
from queues.needs import Need, Size, total

Free = Mapping[str, int]
#: (index of the host, how many, size).
Placement = list[tuple[int, int, Size]]


@dataclass(frozen=True, slots=True)
class Packed:
    """Where every instance goes; None: nowhere, if that is ``sure``, else nowhere that was found."""

    placed: Placement | None
    sure: bool = True


_NOWHERE: Final = Packed(None)


def fits(size: Size, free: Free) -> int:
    """How many instances of a size a host takes."""
    most: int | None = None
    for name, amount in size:  # a plain loop: nothing is called more often
        here = free.get(name, 0) // amount
        if most is None or here < most:
            most = here
    return max(most or 0, 0)


def pack(need: Need, hosts: Sequence[Free], patience: Patience) -> Packed:
    """Where every instance goes, looked for as long as there is patience."""
    if not _could_fit(need, hosts):
        return _NOWHERE
    if len(need) == 1:
        return Packed(_greedy(need, hosts))
    for order in _orders(need, hosts):
        placed = _greedy(order, hosts)
        if placed is not None:
            return Packed(placed)
    return _searched(need, hosts, patience)


def place(need: Need, hosts: Sequence[Free]) -> Placement | None:
    """The same for a single question; None: nowhere that was found."""
    return pack(need, hosts, Patience()).placed


def missing(need: Need, hosts: Sequence[Free]) -> int:
    """How many instances remain without a host when as many as possible are placed, the larger first."""
    free = [dict(host) for host in hosts]
    return sum(count - _fill(count, size, free, []) for count, size in _orders(need, hosts)[0])


def short(need: Need, hosts: Sequence[Free], capacity: Free) -> float:
    """How much of what a request needs is free on no host, as a share of all the capacity there is."""
    return sum(
        max(0, amount - sum(max(host.get(name, 0), 0) for host in hosts)) / max(1, capacity.get(name, 1))
        for name, amount in total(need).items()
    )


def _could_fit(need: Need, hosts: Sequence[Free]) -> bool:
    """False where no order can help: a size that fits too rarely, or a sum that is not there."""
    wanted: dict[str, int] = {}
    for count, size in need:
        if sum(fits(size, free) for free in hosts) < count:
            return False
        for name, amount in size:
            wanted[name] = wanted.get(name, 0) + count * amount
    return all(sum(max(free.get(name, 0), 0) for free in hosts) >= sum_ for name, sum_ in wanted.items())


def _orders(need: Need, hosts: Sequence[Free]) -> list[Need]:
    """The sizes, the larger first, by their dominant share and by each resource."""
    names = sorted({name for _, size in need for name, _ in size})
    sums = {name: max(1, sum(max(free.get(name, 0), 0) for free in hosts)) for name in names}
    dominant = tuple(
        sorted(need, key=lambda part: max(amount / sums[name] for name, amount in part[1]), reverse=True)
    )
    return [dominant] + [
        tuple(sorted(need, key=lambda part: dict(part[1]).get(name, 0), reverse=True)) for name in names
    ]


def _greedy(need: Need, hosts: Sequence[Free]) -> Placement | None:
    free = [dict(host) for host in hosts]
    placed: Placement = []
    for count, size in need:
        if _fill(count, size, free, placed) < count:
            return None
    return placed


def _fill(count: int, size: Size, free: list[dict[str, int]], placed: Placement) -> int:
    """Place up to so many of a size, on the hosts with the least room first; returns how many."""
    room = sorted((fits(size, host), index) for index, host in enumerate(free))
    left = count
    # A host that takes all that is left, and has the least room of those, leaves the others whole.
    enough = next(((slots, index) for slots, index in room if slots >= left), None)
    for slots, index in [enough] if enough else reversed(room):
        here = min(left, slots)
        if here:
            placed.append((index, here, size))
            for name, amount in size:
                free[index][name] -= here * amount
            left -= here
        if not left:
            break
    return count - left


def _searched(need: Need, hosts: Sequence[Free], patience: Patience) -> Packed:
    useful = [number for number, free in enumerate(hosts) if any(fits(size, free) for _, size in need)]
    names = tuple(sorted({name for _, size in need for name, _ in size}))
    amounts = tuple(tuple(max(hosts[number].get(name, 0), 0) for name in names) for number in useful)
    found = search(need, names, amounts, patience.share())
    patience.spend(found.steps)
    if found.where is None:
        return Packed(None, found.sure)
    return Packed([(useful[host], count, need[size][1]) for host, count, size in found.where])
