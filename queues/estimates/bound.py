"""How long the head of a best-effort queue waits at most: nobody else takes what becomes free for it. Pure.

It rests on what clients declared (``duration``) and on nothing that was observed: a bound, not a guess. It is
void when an operator takes capacity away, or somebody moves before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from queues.admission import packing
from queues.admission.asked import ASKED, Asked
from queues.admission.decide import Host, Reservation
from queues.admission.search import Patience
from queues.estimates.forward import Running
from queues.estimates.rolling import Rolling
from queues.needs import Need


@dataclass(frozen=True)
class Bound:
    """``seconds`` from now on; None: it cannot be told, ``because``."""

    aggregate: str
    seconds: float | None
    because: str = ""

    def shown(self) -> dict[str, Any]:
        """In explain."""
        if self.seconds is None:
            return {"aggregate": self.aggregate, "unknown": f"because {self.because}"}
        return {"aggregate": self.aggregate, "bound_s": up(self.seconds)}

    def text(self) -> str:
        """The sentence behind the reason."""
        if self.seconds is None:
            return f"By when it starts at the latest is unknown, because {self.because}"
        return (
            f"It starts within {math.ceil(up(self.seconds))} s: by then enough of what runs there has ended, "
            "by the durations that they declared"
        )


def up(seconds: float) -> float:
    """To the tenth above: a bound is not rounded down."""
    return math.ceil(seconds * 10) / 10


def kept_for(asked: Asked) -> Reservation | None:
    """What is kept for the entry asked about; None: it is not the head of a best-effort queue."""
    kept = asked.decision.reservation
    return kept if kept is not None and kept.entry == asked.head.id else None


def bound(asked: Asked, runs: Sequence[Running], look_s: float, *, outside: str = "") -> Bound:
    """Of an entry for which an aggregate is kept; ``runs``: all that runs there.

    ``look_s``: until somebody looks; ``outside``: the provider of which others take, too.
    """
    kept = kept_for(asked)
    if kept is None:
        raise ValueError("nothing is kept for it")
    if outside:
        return Bound(kept.aggregate, None, f"others may take what becomes free at {outside}")
    if asked.snapshot.approximate:
        return Bound(kept.aggregate, None, "more kinds of requests wait than are looked at together")
    if because := _somebody_first(asked):
        return Bound(kept.aggregate, None, because)
    hosts = next(each.hosts for each in asked.snapshot.aggregates if each.name == kept.aggregate)
    seconds = _enough(asked.cls.need, hosts, runs)
    if seconds < math.inf:
        return Bound(kept.aggregate, seconds + look_s)
    untold = sum(each.cap is None for each in runs)
    if untold:
        return Bound(
            kept.aggregate, None, f"{untold} of {len(runs)} that run there declare no duration in their data"
        )
    return Bound(kept.aggregate, None, "one that runs there has outlasted the duration that it declared")


def _enough(need: Need, hosts: Iterable[Host], runs: Sequence[Running]) -> float:
    """When so many have ended that it fits, if each ends as late as it may.

    Instances of one size are placed exactly: what fits then fits with more free, too. Of several sizes that
    is not certain: there all have to end.
    """
    free = {host.id: dict(host.free) for host in hosts}
    at = 0.0
    for left, each in sorted(((_left(each), each) for each in runs), key=lambda pair: (pair[0], pair[1].id)):
        if left > at and len(need) == 1 and packing.place(need, list(free.values())) is not None:
            return at
        at = left
        for host, name, amount in each.holds:
            if host in free:
                free[host][name] = free[host].get(name, 0) + amount
    return at


def _left(run: Running) -> float:
    return run.cap - run.age if run.cap is not None and run.cap > run.age else math.inf


def _somebody_first(asked: Asked) -> str:
    """Why one before it may become the head yet; "" = none may."""
    mine = (asked.head.priority, asked.head.tie)
    round_ = Rolling(asked.snapshot, {}, {}, Patience())
    for cls in asked.snapshot.classes:
        if cls.id == ASKED or cls.queue != asked.cls.queue:
            continue
        if (cls.heads[0].priority, cls.heads[0].tie) < mine:
            if round_.may_be_head(cls):
                return "one before it waits for its owner's quota, and goes first then"
            if round_.might_be_head(cls):
                return "it is not known whether all there is suffices for one before it: that goes first then"
    return ""
