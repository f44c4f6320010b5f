"""THE decision: which waiting entries are admitted now, and why the others are not. Pure.

The admission loop, explanations and simulations call the same function with a snapshot each.

Order: a tenant's entries by (Priority, hidden key); between tenants the one that holds the smaller share of
what there is goes first. An entry that cannot be admitted is set aside when that is its own business (it
never fits, or its owner's quota is used up); otherwise it blocks: in mode ``strict`` every aggregate where it
could go, in mode ``best_effort`` one aggregate, and only as the first such entry: what becomes free there is
kept for it, and what it needs of its owner's quota. Where the search for a place ends before it is known
whether a request fits even on empty hosts, it may go there but blocks nothing. Source: contract page 50.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from queues.admission.lines import Lines
from queues.admission.space import Space
from queues.admission.terms import (
    Admission,
    Aggregate,
    Class,
    Decision,
    Head,
    Host,
    Level,
    Reservation,
    Snapshot,
    Verdict,
)
from queues.needs import Need, total

__all__ = [
    "MOST", "Admission", "Aggregate", "Candidates", "Class", "Decision", "Head", "Host", "Level",
    "Reservation", "Snapshot", "Verdict", "decide",
]  # fmt: skip

#: Where a need of a tenant could ever go, by what its data names.
Candidates = dict[tuple[Need, str, int], tuple[str, ...]]

#: Most entries that one decision admits.
MOST: Final = 100


def decide(snapshot: Snapshot, most: int = MOST) -> Decision:
    """Admit what can be admitted, at most so many; the same snapshot always gives the same decision."""
    return Round(snapshot).run(most)


class Round:
    """The working copy of one decision: what is free, held and closed as it goes on."""

    def __init__(self, snapshot: Snapshot, space: Space | None = None) -> None:
        self.snapshot = snapshot
        self.space = space or Space(snapshot)
        self.held = {key: dict(amounts) for key, amounts in snapshot.held.items()}
        self.shares = {queue: dict(amounts) for queue, amounts in snapshot.shares.items()}
        #: Aggregate -> the entry that keeps others out of it.
        self.closed: dict[str, int] = {}
        #: Strict: (queue, owner) of the entries that do so.
        self.blocking: set[tuple[int, str]] = set()
        self.queues = {cls.queue for cls in snapshot.classes}
        #: Strict: (queue, owner) whose first entry waits for its quota -> that entry.
        self.stopped: dict[tuple[int, str], int] = {}
        self.reservation: Reservation | None = None
        self.reserved_for: Class | None = None
        self.admitted: list[Admission] = []
        self.verdicts: dict[int, Verdict] = {}
        self._known: Candidates = {}

    def run(self, most: int) -> Decision:
        if self.snapshot.trouble:
            verdicts = {each.id: Verdict(Level.PROVIDER) for each in self.snapshot.classes}
            return Decision((), verdicts, self.snapshot.reservation, False)
        # What can go nowhere takes no turn either: whether a look set it aside before changes nothing.
        hopeless = {
            each.id: self._hopeless(each) for each in self.snapshot.classes if not self._candidates(each)
        }
        hopeful = tuple(each for each in self.snapshot.classes if each.id not in hopeless)
        lines = Lines(hopeful, self.share)
        self._keep_reservation(lines)
        more = False
        while (found := self._next(lines)) is not None:
            cls, head = found
            if len(self.admitted) == most:
                more = True
                break
            verdict = self._try(cls, head)
            if verdict is not None:
                self.verdicts[cls.id] = verdict
                lines.drop(cls)
                continue
            read = lines.advance(cls)
            if self._reopens(cls, head):
                self._reopen(lines)
            if not read:
                more = True  # the rest of the class is not in the snapshot, and may be next in line
                break
        for cls in hopeful:
            if lines.waits(cls):
                self.verdicts[cls.id] = self._afterwards(cls, lines.head(cls))
        return Decision(tuple(self.admitted), {**hopeless, **self.verdicts}, self.reservation, more)

    def _next(self, lines: Lines) -> tuple[Class, Head] | None:
        return lines.next()

    def _afterwards(self, cls: Class, head: Head) -> Verdict:
        """Why it waits, when what was admitted or reserved after it was looked at counts, too."""
        known = self.verdicts.get(cls.id)
        if known is None:
            return Verdict(Level.EVALUATING)
        if resource := self._over(cls):
            return Verdict(Level.OVER_QUOTA, known.candidates, resource=resource)
        if known.level == Level.NO_CAPACITY and not self.snapshot.strict:
            open_ = self._open(known.candidates, head)
            if behind := self._stopped(cls, head) or self._blocker(cls, known.candidates, open_):
                return replace(known, level=Level.BEHIND, blocked_by=behind)
        return known

    def share(self, queue: int) -> float:
        """The dominant share of what a queue's entries hold, of all there is."""
        held, capacity = self.shares.get(queue, {}), self.space.capacity
        return max(
            (amount / capacity[name] for name, amount in held.items() if capacity.get(name)), default=0.0
        )

    def _keep_reservation(self, lines: Lines) -> None:
        """Take over that of before, if its entry is still the first of its tenant whose wait has a bound."""
        kept = self.snapshot.reservation
        if self.snapshot.strict or kept is None:
            return
        classes = self.snapshot.classes
        cls = next((each for each in classes if each.heads and each.heads[0].id == kept.entry), None)
        if cls is None or kept.aggregate not in self._bounded(cls) or self._over(cls):
            return
        if all(self._over(other) or not self._bounded(other) for other in lines.before(cls)):
            self._reserve(kept, cls)

    def _reserve(self, reservation: Reservation, cls: Class) -> None:
        self.reservation, self.reserved_for = reservation, cls
        self.closed[reservation.aggregate] = reservation.entry

    def _reopens(self, cls: Class, head: Head) -> bool:
        """Whether others may go where somebody blocks, now that this entry is admitted.

        Strict: its tenant holds more now, so its blocking entries are not the first ones any more; or its
        owner's quota is used up, so they are set aside. Best effort: an aggregate was kept for this one.
        """
        if self.snapshot.strict:
            owner = (cls.queue, cls.owner)
            turns = len(self.queues) > 1 and any(queue == cls.queue for queue, _ in self.blocking)
            return turns or (owner in self.blocking and owner in self.snapshot.quotas)
        return self.reservation is not None and self.reservation.entry == head.id

    def _reopen(self, lines: Lines) -> None:
        """Whoever had to wait is looked at again."""
        self.closed.clear()
        self.blocking.clear()
        self.stopped.clear()
        self.verdicts.clear()
        self.reservation = self.reserved_for = None
        lines.restore()

    def _try(self, cls: Class, head: Head) -> Verdict | None:
        """Admit an entry (None), or say why not and close what it blocks."""
        candidates = self._candidates(cls)
        if resource := self._over(cls):
            quotas, wanted = self.snapshot.quotas[cls.queue, cls.owner], total(cls.need)
            if self.snapshot.strict and wanted[resource] <= quotas[resource] and self._surely(cls):
                self.stopped.setdefault((cls.queue, cls.owner), head.id)
            return Verdict(Level.OVER_QUOTA, candidates, resource=resource)
        stopped = self._stopped(cls, head)
        if stopped is not None:
            return Verdict(Level.BEHIND, candidates, stopped)
        open_ = self._open(candidates, head)
        fitting = [name for name in open_ if self.space.fits(cls.need, name)]
        if fitting:
            self._admit(cls, head, min(fitting, key=self.space.room))
            return None
        behind = self._blocker(cls, candidates, open_)
        self._block(cls, head)
        level = Level.NO_CAPACITY if behind is None else Level.BEHIND
        if len(cls.need) == 1:
            return Verdict(level, candidates, behind)
        unsure = tuple(name for name in candidates if not self.space.pack(cls.need, name).sure)
        return Verdict(level, candidates, behind, unsure=unsure, doubtful=not self._surely(cls))

    def _open(self, candidates: tuple[str, ...], head: Head) -> list[str]:
        """Where nobody else keeps it out."""
        return [name for name in candidates if self.closed.get(name, head.id) == head.id]

    def _stopped(self, cls: Class, head: Head) -> int | None:
        """The entry of the same owner for which the quota is kept."""
        kept, reserved_for = self.reservation, self.reserved_for
        if kept is not None and reserved_for is not None and kept.entry != head.id:
            same = (reserved_for.queue, reserved_for.owner) == (cls.queue, cls.owner)
            return kept.entry if same and self._over(cls, reserved_for) else None
        return self.stopped.get((cls.queue, cls.owner))

    def _blocker(self, cls: Class, candidates: tuple[str, ...], open_: list[str]) -> int | None:
        """Who is in its way: whoever closed an aggregate in which it would fit, or closed all of them."""
        closed = [name for name in candidates if name not in open_]
        in_its_way = [name for name in closed if self.space.fits(cls.need, name)]
        if in_its_way or not open_:
            return self.closed[(in_its_way or closed)[0]]
        return None

    def _block(self, cls: Class, head: Head) -> None:
        if self.snapshot.strict:
            for name in self._surely(cls):
                self.closed.setdefault(name, head.id)
                self.blocking.add((cls.queue, cls.owner))
        elif self.reservation is None and (bounded := self._bounded(cls)):
            least = min(bounded, key=lambda name: self.space.lack(cls.need, name))
            self._reserve(Reservation(head.id, least), cls)

    def _admit(self, cls: Class, head: Head, name: str) -> None:
        hosts, placed = self.space.aggregates[name].hosts, self.space.pack(cls.need, name).placed
        if placed is None:
            raise ValueError(f"{name} does not hold {cls.need}")
        self.space.take(name, placed)
        for amounts in (
            self.held.setdefault((cls.queue, cls.owner), {}),
            self.shares.setdefault(cls.queue, {}),
        ):
            for resource, amount in total(cls.need).items():
                amounts[resource] = amounts.get(resource, 0) + amount
        places = tuple((hosts[index].id, count, size) for index, count, size in placed)
        self.admitted.append(Admission(head.id, cls, name, places))

    def _candidates(self, cls: Class) -> tuple[str, ...]:
        """Where an entry of this class could go if there were as much as ever."""
        key = (cls.need, cls.bound, cls.tenant)
        found = self._known.get(key)
        if found is None:
            known = self.space.aggregates
            allowed = [name for name in sorted(known) if known[name].open_to(cls)]
            found = tuple(name for name in allowed if self.space.ever_fits(cls.need, name) is not False)
            self._known[key] = found
        return found

    def _surely(self, cls: Class) -> tuple[str, ...]:
        """Where it is known that it could go: this is what it blocks in strict mode."""
        found = self._candidates(cls)
        if len(cls.need) == 1:
            return found  # of one size it is always known
        return tuple(name for name in found if self.space.ever_fits(cls.need, name))

    def _bounded(self, cls: Class) -> tuple[str, ...]:
        """Where it can go when all that runs there has ended: only there its wait has a bound."""
        return tuple(name for name in self._candidates(cls) if self.space.ever_fits(cls.need, name, now=True))

    def _hopeless(self, cls: Class) -> Verdict:
        """It can go nowhere: because there is no such place or resource, or because it is too large."""
        known = [each for each in self.snapshot.aggregates if each.open_to(cls)]
        for aggregate in known:
            names = {name for host in aggregate.hosts for name, amount in host.largest.items() if amount}
            if all(resource in names for resource in total(cls.need)):
                return Verdict(Level.NEVER_FITS)
        return Verdict(Level.MISCONFIGURED)

    def _over(self, cls: Class, beside: Class | None = None) -> str:
        """The resource of which its owner would hold more than its quota; "" = none.

        First one of which it alone wants more: that does not pass with time.
        """
        quotas = self.snapshot.quotas.get((cls.queue, cls.owner))
        if not quotas:
            return ""
        held, wanted = self.held.get((cls.queue, cls.owner), {}), total(cls.need)
        kept = total(beside.need) if beside else {}
        limited = sorted(name for name in quotas if wanted.get(name))
        for name in limited:
            if wanted[name] > quotas[name]:
                return name
        for name in limited:
            if held.get(name, 0) + wanted[name] + kept.get(name, 0) > quotas[name]:
                return name
        return ""
