"""The decision, asked about one entry or about what would be if: pure.

A grouped snapshot knows the first entries of each class only. The entry that is asked about becomes a class
of its own, in its place: grouping changes nothing but the cost, so the decision on it is the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from queues.admission.decide import Aggregate, Class, Decision, Head, Host, Level, Snapshot, Verdict
from queues.admission.trial import Places, tried
from queues.needs import MOST, UNIT, Size, shown, total

#: The class of the entry that is asked about.
ASKED: Final = -1


@dataclass(frozen=True)
class Asked:
    """An entry and the snapshot in which it is a class of its own."""

    snapshot: Snapshot
    cls: Class
    #: Shared with what is asked what would be if.
    places: Places = field(default_factory=dict, compare=False, repr=False)

    @property
    def head(self) -> Head:
        return self.cls.heads[0]

    @cached_property
    def decision(self) -> Decision:
        """As far as the entry is concerned; of all that one decision admits: its turn comes if it can."""
        return tried(self.snapshot, self.cls.id, self.places)

    def verdict(self, decision: Decision) -> Verdict:
        """Why it waits; EVALUATING when the next look admits it."""
        if any(each.entry == self.head.id for each in decision.admitted):
            return Verdict(Level.EVALUATING)
        found = decision.verdicts.get(ASKED, Verdict(Level.EVALUATING))
        if found.level == Level.EVALUATING and decision.more:
            return Verdict(Level.BEHIND)  # more are before it than a decision looks at
        return found

    def goes(self) -> bool:
        """Whether the next look admits it."""
        return any(each.entry == self.head.id for each in self.decision.admitted)


def ask(snapshot: Snapshot, class_id: int, head: Head) -> Asked:
    """Ask about the entry ``head`` of a class of the snapshot."""
    cls = next(each for each in snapshot.classes if each.id == class_id)
    alone = replace(cls, id=ASKED, heads=(head,), count=1)
    others = tuple(each for each in cls.heads if each.id != head.id)
    rest = replace(cls, heads=others, count=cls.count - 1)
    # In its place: who is first has most of the patience with which a place is looked for.
    at = snapshot.classes.index(cls)
    classes = (*snapshot.classes[:at], alone, *((rest,) if others else ()), *snapshot.classes[at + 1 :])
    return Asked(replace(snapshot, classes=classes), alone)


# --- what would be if --------------------------------------------------------------------------------------


def moved_to_front(asked: Asked) -> Asked:
    """The same entry before all others of its queue."""
    cls = replace(asked.cls, heads=(replace(asked.head, priority=-(2**53), tie=""),))
    return _with_class(asked, cls)


def unbound(asked: Asked) -> Asked:
    """The same entry without an aggregate in its data."""
    return _with_class(asked, replace(asked.cls, bound=""))


def without(asked: Asked, entry: int) -> Asked:
    """As if another waiting entry were withdrawn."""
    classes = tuple(
        replace(each, heads=tuple(head for head in each.heads if head.id != entry), count=each.count - 1)
        if any(head.id == entry for head in each.heads)
        else each
        for each in asked.snapshot.classes
    )
    return _with(asked, classes=tuple(each for each in classes if each.heads))


def with_quota(asked: Asked, resource: str, amount: int) -> Asked:
    """As if its owner's quota were another one."""
    key = (asked.cls.queue, asked.cls.owner)
    quotas = {**asked.snapshot.quotas, key: {**asked.snapshot.quotas.get(key, {}), resource: amount}}
    return _with(asked, quotas=quotas)


def with_freed(
    asked: Asked, freed: Mapping[int, Mapping[str, int]], owner: str, amounts: Mapping[str, int]
) -> Asked:
    """As if a running entry of its queue had ended: ``freed``: host -> what it held there."""
    aggregates = tuple(
        replace(each, hosts=tuple(_freed(host, freed.get(host.id, {})) for host in each.hosts))
        if any(host.id in freed for host in each.hosts)
        else each
        for each in asked.snapshot.aggregates
    )
    key = (asked.cls.queue, owner)
    held = {**asked.snapshot.held, key: _less(asked.snapshot.held.get(key, {}), amounts)}
    queue = asked.cls.queue
    shares = {**asked.snapshot.shares, queue: _less(asked.snapshot.shares.get(queue, {}), amounts)}
    return _with(asked, aggregates=aggregates, held=held, shares=shares)


def with_host(asked: Asked, aggregate: str, amounts: Mapping[str, int]) -> Asked:
    """As if an aggregate (a new one where there is none of that name) had one more host."""
    host = Host(0, "", dict(amounts), dict(amounts), dict(amounts))
    found = [each for each in asked.snapshot.aggregates if each.name == aggregate]
    grown = replace(found[0], hosts=(*found[0].hosts, host)) if found else Aggregate(aggregate, (host,))
    rest = tuple(each for each in asked.snapshot.aggregates if each.name != aggregate)
    return _with(asked, aggregates=(*rest, grown))


def _with_class(asked: Asked, cls: Class) -> Asked:
    classes = tuple(cls if each.id == ASKED else each for each in asked.snapshot.classes)
    return replace(_with(asked, classes=classes), cls=cls)


def _with(asked: Asked, **changed: Any) -> Asked:
    return replace(asked, snapshot=replace(asked.snapshot, **changed))


def _freed(host: Host, more: Mapping[str, int]) -> Host:
    if not more:
        return host
    return replace(host, free={**host.free, **{name: host.free.get(name, 0) + more[name] for name in more}})


def _less(amounts: Mapping[str, int], gone: Mapping[str, int]) -> dict[str, int]:
    return {**amounts, **{name: max(0, amounts.get(name, 0) - gone[name]) for name in gone}}


# --- words -------------------------------------------------------------------------------------------------


def size_text(size: Size) -> str:
    """ "8 VCPU, 16384 Memory"."""
    return ", ".join(f"{shown(amount)} {name}" for name, amount in size)


def host_for(asked: Asked) -> dict[str, int]:
    """What one more host would have to have to hold the whole request."""
    return {
        name: min(-(-amount // UNIT) * UNIT, MOST * UNIT) for name, amount in total(asked.cls.need).items()
    }
