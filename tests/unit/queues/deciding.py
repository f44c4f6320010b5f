"""Snapshots made up for decisions: a few words for hosts, entries and who holds what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from queues.admission.decide import Aggregate, Class, Decision, Head, Host, Level, Snapshot
from queues.needs import Need

#: What one resource of an example is called.
CPU = "cpu"


def gang(count: int, **size: int) -> Need:
    """So many instances of one size."""
    return ((count, tuple(sorted(size.items()))),)


def cpus(amount: int) -> Need:
    return gang(1, cpu=amount)


def host(id_: int, free: int, total: int | None = None, largest: int | None = None) -> Host:
    whole = free if total is None else total
    return Host(id_, f"h{id_}", {CPU: free}, {CPU: whole}, {CPU: whole if largest is None else largest})


def aggregate(name: str, *free: int, total: int | None = None, **more: Any) -> Aggregate:
    """An aggregate of hosts with so many free; their ids begin with the name's letter."""
    first = 100 * ord(name[0])
    hosts = tuple(host(first + number, amount, total) for number, amount in enumerate(free))
    return Aggregate(name, hosts, **more)


def waiting(
    entry: int,
    need: Need,
    *,
    owner: str = "o",
    tenant: int = 1,
    bound: str = "",
    priority: int | None = None,
    since: float = 0.0,
    count: int = 1,
    known: int | None = None,
) -> Class:
    """A class that begins with this entry; the next ones have the next numbers and priorities."""
    first = entry if priority is None else priority
    heads = tuple(
        Head(entry + number, first + number, "V", since + number)
        for number in range(count if known is None else known)
    )
    return Class(1000 + entry, tenant, tenant, owner, need, bound, heads, count)


def seen(*classes: Class, there: tuple[Aggregate, ...], strict: bool = False, **more: Any) -> Snapshot:
    return Snapshot(strict=strict, aggregates=there, classes=classes, **more)


def admitted(decision: Decision) -> list[tuple[int, str]]:
    return [(each.entry, each.aggregate) for each in decision.admitted]


def levels(decision: Decision) -> dict[int, Level]:
    """By the number of the class's first entry, as ``waiting`` numbers them."""
    return {class_id - 1000: verdict.level for class_id, verdict in decision.verdicts.items()}


def apply(snapshot: Snapshot, decision: Decision, **more: Any) -> Snapshot:
    """What the next look sees when nothing else happens."""
    gone = {each.entry for each in decision.admitted}
    taken: dict[int, dict[str, int]] = {}
    held = {key: dict(amounts) for key, amounts in snapshot.held.items()}
    shares = {key: dict(amounts) for key, amounts in snapshot.shares.items()}
    for each in decision.admitted:
        for id_, count, size in each.places:
            for name, amount in size:
                for amounts in (
                    taken.setdefault(id_, {}),
                    held.setdefault((each.cls.queue, each.cls.owner), {}),
                    shares.setdefault(each.cls.queue, {}),
                ):
                    amounts[name] = amounts.get(name, 0) + count * amount
    classes = []
    for cls in snapshot.classes:
        heads = tuple(head for head in cls.heads if head.id not in gone)
        left = cls.count - (len(cls.heads) - len(heads))
        if heads:
            classes.append(Class(cls.id, cls.queue, cls.tenant, cls.owner, cls.need, cls.bound, heads, left))
    values: dict[str, Any] = {
        "strict": snapshot.strict,
        "aggregates": tuple(_without(each, taken) for each in snapshot.aggregates),
        "classes": tuple(classes),
        "held": held,
        "shares": shares,
        "quotas": snapshot.quotas,
        "reservation": decision.reservation,
    }
    return Snapshot(**{**values, **more})


def _without(there: Aggregate, taken: Mapping[int, Mapping[str, int]]) -> Aggregate:
    hosts = tuple(
        Host(
            each.id,
            each.name,
            {name: amount - taken.get(each.id, {}).get(name, 0) for name, amount in each.free.items()},
            each.total,
            each.largest,
        )
        for each in there.hosts
    )
    return Aggregate(there.name, hosts, there.tenants, there.removed)


def unknown_fit() -> tuple[Need, list[dict[str, int]]]:
    """A request of too many sizes to be searched for, and hosts with enough in sum, but not in pieces."""
    return tuple((1, ((CPU, size),)) for size in range(101, 166)), [{CPU: 300} for _ in range(32)]


def most_placed(need: Need, hosts: Sequence[Mapping[str, int]]) -> int:
    """The oracle: the most instances that can be placed together, by trying all there is to try."""
    names = sorted({name for _, size in need for name, _ in size})
    items = [tuple(dict(size).get(name, 0) for name in names) for count, size in need for _ in range(count)]

    @cache
    def most(number: int, free: tuple[tuple[int, ...], ...]) -> int:
        if number == len(items):
            return 0
        best = 0
        for index, has in enumerate(free):
            # What a host lacks matters only to those who want it: it may even be below 0.
            if all(not wanted or wanted <= here for wanted, here in zip(items[number], has, strict=True)):
                left = tuple(here - wanted for wanted, here in zip(items[number], has, strict=True))
                best = max(best, 1 + most(number + 1, (*free[:index], left, *free[index + 1 :])))
            if best == len(items) - number:
                return best
        return max(best, most(number + 1, free))

    return most(0, tuple(tuple(host.get(name, 0) for name in names) for host in hosts))
