"""Whether all instances of a request fit on the hosts of one aggregate, and where. Pure.

Instances of one size are placed exactly. Of several sizes the larger are placed first, in a few orders, then
by a search with a limit on its steps: in rare mixtures a placement that exists is not found, and the request
waits for more room; none is ever found that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from queues.needs import Need, Size

Free = Mapping[str, int]
#: (index of the host, how many, size).
Placement = list[tuple[int, int, Size]]

_STEPS: Final = 5000


def fits(size: Size, free: Free) -> int:
    """How many instances of a size a host takes."""
    most: int | None = None
    for name, amount in size:  # a plain loop: nothing is called more often
        here = free.get(name, 0) // amount
        if most is None or here < most:
            most = here
    return max(most or 0, 0)


def place(need: Need, hosts: Sequence[Free]) -> Placement | None:
    """Where every instance goes; None when they do not all fit."""
    if not _could_fit(need, hosts):
        return None
    if len(need) == 1:
        return _greedy(need, hosts)
    for order in _orders(need, hosts):
        found = _greedy(order, hosts)
        if found is not None:
            return found
    return _search(_orders(need, hosts)[0], hosts)


def missing(need: Need, hosts: Sequence[Free]) -> int:
    """How many instances remain without a host when as many as possible are placed, the larger first."""
    free = [dict(host) for host in hosts]
    return sum(count - _fill(count, size, free, []) for count, size in _orders(need, hosts)[0])


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


def _search(need: Need, hosts: Sequence[Free]) -> Placement | None:
    """Depth first, instance by instance, with a limit on the steps."""
    items = [size for count, size in need for _ in range(count)]
    free = [dict(host) for host in hosts]
    chosen: list[int] = []
    steps = 0

    def tried(number: int) -> bool:
        nonlocal steps
        if number == len(items):
            return True
        size = items[number]
        # Equal instances in the order of their hosts: the other orders are the same placement.
        first = chosen[-1] if number and items[number - 1] == size else 0
        seen: set[tuple[tuple[str, int], ...]] = set()
        for index in range(first, len(free)):
            alike = tuple(sorted(free[index].items()))
            steps += 1
            if steps > _STEPS:
                return False
            if alike in seen or not fits(size, free[index]):
                continue
            if index > first:
                seen.add(alike)
            for name, amount in size:
                free[index][name] -= amount
            chosen.append(index)
            if tried(number + 1):
                return True
            chosen.pop()
            for name, amount in size:
                free[index][name] += amount
        return False

    if len(items) > 200 or not tried(0):
        return None
    counts: dict[tuple[int, Size], int] = {}
    for index, size in zip(chosen, items, strict=True):
        counts[index, size] = counts.get((index, size), 0) + 1
    return [(index, count, size) for (index, size), count in counts.items()]
