"""Why an entry waits, in words and numbers, and what would change that. Pure.

Everything is asked of the one decision (``asked``): a suggestion is told only when the decision, run with it,
admits the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from queues.admission import asked as what
from queues.admission import packing
from queues.admission.asked import Asked, host_for, size_text
from queues.admission.decide import Aggregate, Level, Verdict
from queues.admission.search import Patience
from queues.needs import shown, total

#: Running entries whose end is tried, and suggestions that are enough.
ENDS: Final = 5
ENOUGH: Final = 3


@dataclass(frozen=True)
class Holder:
    """A running entry of the same tenant: what it holds of which host."""

    request_id: str
    owner: str
    hosts: Mapping[int, Mapping[str, int]]
    amounts: Mapping[str, int]


@dataclass
class Reason:
    """One reason in the engine's form; ``conditions`` says how much of what there is meets each need."""

    code: str
    message: str
    need: float | None = None
    free: float | None = None
    quota: float | None = None
    blocked_by: list[str] = field(default_factory=list)
    remedy: str = ""
    conditions: list[dict[str, Any]] = field(default_factory=list)
    suggestions: list[dict[str, Any]] = field(default_factory=list)


#: The request_id of an entry of the same tenant; None = another tenant's.
Name = Callable[[int], str | None]


def reason(asked: Asked, name: Name, holders: Sequence[Holder]) -> Reason:
    """The reason why the entry waits, with the suggestions that were tried."""
    verdict = asked.verdict(asked.decision)
    found = _WORDS[verdict.level](asked, verdict, name)
    if verdict.level in (Level.BEHIND, Level.NO_CAPACITY, Level.NEVER_FITS):
        found.conditions = conditions(asked, verdict)
    if verdict.level not in (Level.PROVIDER, Level.EVALUATING):
        found.suggestions = suggestions(asked, verdict, name, holders)
        tried = "; or ".join(each["text"] for each in found.suggestions)
        found.remedy = tried or _ANYWAY[verdict.level]
    return found


def conditions(asked: Asked, verdict: Verdict) -> list[dict[str, Any]]:
    """How many hosts and aggregates meet each condition now."""
    where = [
        each
        for each in asked.snapshot.aggregates
        if not verdict.candidates or each.name in verdict.candidates
    ]
    hosts = [host for each in where for host in each.hosts]
    _, largest = max(asked.cls.need, key=lambda part: part[1])
    found = [
        {
            "condition": f"hosts have {shown(amount)} {resource} free",
            "satisfied": sum(host.free.get(resource, 0) >= amount for host in hosts),
            "of": len(hosts),
        }
        for resource, amount in largest
    ]
    count = sum(part[0] for part in asked.cls.need)
    patience = Patience()
    packed = [packing.pack(asked.cls.need, [host.free for host in each.hosts], patience) for each in where]
    holding = sum(each.placed is not None for each in packed)
    all_of_them = f"all {count} instances" if count > 1 else "it"
    found.append({"condition": f"aggregates can hold {all_of_them}", "satisfied": holding, "of": len(where)})
    if unsure := sum(not each.sure for each in packed):
        text = f"aggregates may hold {all_of_them}: the search for a place has a limit, and ended there"
        found.append({"condition": text, "satisfied": unsure, "of": len(where)})
    return found


def suggestions(
    asked: Asked, verdict: Verdict, name: Name, holders: Sequence[Holder]
) -> list[dict[str, Any]]:
    """What would have it admitted by the next look; each was tried. The first few: a try costs a decision."""
    found = []
    for told, changed in _tries(asked, verdict, name, holders):
        if changed.goes():
            found.append(told)
            if len(found) == ENOUGH:
                break
    return found


def _tries(
    asked: Asked, verdict: Verdict, name: Name, holders: Sequence[Holder]
) -> Iterator[tuple[dict[str, Any], Asked]]:
    """From what its client can do to what an operator must."""
    yield from _own_order(asked, verdict, name)
    yield from _ends(asked, holders[:ENDS])
    yield from _limits(asked, verdict)


def _own_order(asked: Asked, verdict: Verdict, name: Name) -> Iterator[tuple[dict[str, Any], Asked]]:
    if verdict.level == Level.BEHIND:
        text = "move it to the front: a priority below the smallest in the queue"
        yield {"action": "move_to_front", "text": text}, what.moved_to_front(asked)
        blocker = name(verdict.blocked_by) if verdict.blocked_by is not None else None
        if blocker is not None and verdict.blocked_by is not None:
            told = {"action": "withdraw", "request_id": blocker, "text": f"withdraw {blocker}"}
            yield told, what.without(asked, verdict.blocked_by)
    if asked.cls.bound:
        text = f"submit it without host_aggregate ({asked.cls.bound}): any aggregate may take it then"
        yield {"action": "unbind", "text": text}, what.unbound(asked)


def _ends(asked: Asked, holders: Sequence[Holder]) -> Iterator[tuple[dict[str, Any], Asked]]:
    for each in holders:
        told = {"action": "end", "request_id": each.request_id, "text": f"end {each.request_id}, which runs"}
        yield told, what.with_freed(asked, each.hosts, each.owner, each.amounts)


def _limits(asked: Asked, verdict: Verdict) -> Iterator[tuple[dict[str, Any], Asked]]:
    """What only an operator can change."""
    cls, snapshot = asked.cls, asked.snapshot
    if verdict.level == Level.OVER_QUOTA:
        held = snapshot.held.get((cls.queue, cls.owner), {}).get(verdict.resource, 0)
        needed = held + total(cls.need)[verdict.resource]
        text = f"an operator raises the quota of {cls.owner} to {shown(needed)} {verdict.resource}"
        told: dict[str, Any] = {
            "action": "quota",
            "resource": verdict.resource,
            "amount": shown(needed),
            "text": text,
        }
        yield told, what.with_quota(asked, verdict.resource, needed)
        return
    amounts = host_for(asked)
    # A new aggregate where any will do, so that nobody's reservation is in its way.
    aggregate = cls.bound or "new"
    listed = ", ".join(f"{shown(amount)} {resource}" for resource, amount in sorted(amounts.items()))
    where = f"aggregate {aggregate}" if cls.bound else "an aggregate of its own"
    told = {
        "action": "host",
        "aggregate": aggregate,
        "amounts": {resource: shown(amount) for resource, amount in sorted(amounts.items())},
        "text": f"an operator adds a host with {listed} in {where}",
    }
    yield told, what.with_host(asked, aggregate, amounts)


# --- words for each level ----------------------------------------------------------------------------------


def _provider(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    text = f"what there is cannot be told now: {asked.snapshot.trouble}"
    return Reason(
        "provider", text, remedy="nothing is admitted blindly: it goes on when the provider answers"
    )


def _misconfigured(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    cls = asked.cls
    known: list[Aggregate] = [each for each in asked.snapshot.aggregates if not each.removed]
    mine = [each for each in known if each.tenants is None or cls.tenant in each.tenants]
    if not known:
        return Reason("no_pools", "no capacity is declared for this type: an operator has to declare a pool")
    if not mine:
        return Reason(
            "no_pools", "no capacity of this type may be used by this tenant: an operator decides that"
        )
    if cls.bound and cls.bound not in {each.name for each in mine}:
        return Reason("unknown_aggregate", f"there is no aggregate {cls.bound} for it: name another, or none")
    named = {resource for each in mine for host in each.hosts for resource in host.largest}
    unknown = sorted(set(total(cls.need)) - named)
    if unknown:
        return Reason("unknown_resource", f"no host has any {', '.join(unknown)}")
    return Reason("misconfigured", "no aggregate has all the resources that it asks for")


def _never_fits(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    cls = asked.cls
    mine = [
        each
        for each in asked.snapshot.aggregates
        if cls.bound in ("", each.name) and (each.tenants is None or cls.tenant in each.tenants)
    ]
    hosts = [host for each in mine for host in each.hosts]
    for _, size in cls.need:
        if not any(packing.fits(size, host.largest) for host in hosts):
            largest = {
                resource: max((host.largest.get(resource, 0) for host in hosts), default=0)
                for resource, _ in size
            }
            most = ", ".join(f"{shown(amount)} {resource}" for resource, amount in sorted(largest.items()))
            text = f"no host was ever large enough for {size_text(size)}: the most that one has is {most}"
            return Reason("never_fits", text)
    count = sum(part[0] for part in cls.need)
    placed = [count - packing.missing(cls.need, [host.largest for host in each.hosts]) for each in mine]
    text = f"no aggregate was ever large enough for all {count} instances: the largest holds {max(placed)}"
    return Reason("never_fits", text, need=count, free=max(placed))


def _over_quota(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    key = (asked.cls.queue, asked.cls.owner)
    quota = asked.snapshot.quotas[key][verdict.resource]
    held = asked.snapshot.held.get(key, {}).get(verdict.resource, 0)
    needed = total(asked.cls.need)[verdict.resource]
    text = (
        f"{asked.cls.owner} holds {shown(held)} of its quota of {shown(quota)} {verdict.resource}, "
        f"and this needs {shown(needed)}"
    )
    return Reason("over_quota", text, shown(needed), shown(max(0, quota - held)), shown(quota))


def _behind(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    if verdict.blocked_by is None:
        return Reason("behind", "more entries are before it than one look admits: its turn comes")
    blocker = name(verdict.blocked_by)
    who = blocker if blocker is not None else "a request of another tenant"
    if asked.snapshot.strict:
        text = (
            f"{who} is before it and waits for the same capacity; in this queue nobody passes (policy strict)"
        )
    else:
        kept = asked.decision.reservation
        aggregate = kept.aggregate if kept else "an aggregate"
        text = f"{aggregate} is kept for {who}, the first in line, until there is enough for it"
    return Reason("behind", text, blocked_by=[blocker] if blocker is not None else [])


def _no_capacity(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    found = conditions(asked, verdict)
    text = "; ".join(f"{each['satisfied']} of {each['of']} {each['condition']}" for each in found)
    kept = asked.decision.reservation
    if kept is not None and kept.entry == asked.head.id:
        text += f". {kept.aggregate} is kept for it: nobody else takes what becomes free there"
    if verdict.doubtful:
        text += ". Whether all there is suffices for it is not known: every look tries it, it holds nobody up"
    return Reason("no_capacity", text)


def _evaluating(asked: Asked, verdict: Verdict, name: Name) -> Reason:
    text = "nothing is in its way: the next look, within seconds, admits it"
    if asked.snapshot.approximate:
        text = "nothing that was looked at is in its way: looks go on through all that wait, and come to it"
    return Reason("evaluating", text)


#: Where nothing that was tried is enough by itself.
_ANYWAY: Final = {
    Level.MISCONFIGURED: "an operator declares capacity that it may use",
    Level.NEVER_FITS: "ask for less, or have an operator declare more: then it is back in line",
    Level.OVER_QUOTA: "its owner's running requests end, or an operator raises the quota",
    Level.BEHIND: "those before it are admitted or withdrawn",
    Level.NO_CAPACITY: "running requests end",
}
_WORDS: dict[Level, Callable[[Asked, Verdict, Name], Reason]] = {
    Level.PROVIDER: _provider,
    Level.MISCONFIGURED: _misconfigured,
    Level.NEVER_FITS: _never_fits,
    Level.OVER_QUOTA: _over_quota,
    Level.BEHIND: _behind,
    Level.NO_CAPACITY: _no_capacity,
    Level.EVALUATING: _evaluating,
}
