"""What the replay of a journal knows: entries, pools, and how it places and numbers by the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from queues.needs import Need, Size

Amounts = dict[str, int]


@dataclass
class Known:
    """An entry as the model knows it."""

    id: int
    queue: int
    owner: str
    request: str
    need: Need
    bound: str
    number: int
    since: float
    status: str = "queued"
    #: While it runs: host -> resource -> amount.
    booked: dict[int, Amounts] = field(default_factory=dict)

    def wants(self) -> Amounts:
        found: Counter[str] = Counter()
        for count, size in self.need:
            for name, amount in size:
                found[name] += count * amount
        return dict(found)


@dataclass
class Pool:
    """An aggregate: host -> resource -> amount, now and at most ever."""

    total: dict[str, Amounts] = field(default_factory=dict)
    largest: dict[str, Amounts] = field(default_factory=dict)
    tenants: frozenset[int] | None = None

    def become(self, hosts: Mapping[str, Amounts]) -> None:
        for amounts in self.total.values():
            amounts.update(dict.fromkeys(amounts, 0))
        for host, amounts in hosts.items():
            self.total.setdefault(host, {}).update(amounts)
            most = self.largest.setdefault(host, {})
            most.update({name: max(most.get(name, 0), amount) for name, amount in amounts.items()})


def size_of(vcpu: int, memory: int) -> Size:
    return tuple((name, each * 1000) for name, each in (("Memory", memory), ("VCPU", vcpu)) if each)


def between(left: int | None, behind: list[int]) -> int:
    """The number that is shown between two neighbours: contract page 50."""
    if left is None:
        return behind[0] - 1
    mean = (left + behind[0]) // 2 if behind else left
    return mean if behind and left < mean < behind[0] else left


def places(need: Need, booked: Mapping[int, Amounts]) -> tuple[tuple[int, int, Size], ...] | None:
    """How the instances can be spread so that these amounts are exactly theirs; None = not at all."""
    if not need:
        return None if any(any(amounts.values()) for amounts in booked.values()) else ()
    (count, size), rest = need[0], need[1:]
    most = [min(count, *(booked[host].get(name, 0) // amount for name, amount in size)) for host in booked]
    for counts in product(*(range(each + 1) for each in most)):
        if sum(counts) == count:
            left = {host: dict(amounts) for host, amounts in booked.items()}
            for host, here in zip(booked, counts, strict=True):
                for name, amount in size if here else ():
                    left[host][name] -= here * amount
            found = places(rest, left)
            if found is not None:
                here_ = [(host, here, size) for host, here in zip(booked, counts, strict=True) if here]
                return (*here_, *found)
    return None
