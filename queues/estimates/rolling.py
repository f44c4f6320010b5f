"""The decision, taken again and again while entries end: one working copy, not a snapshot each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from queues.admission.decide import MOST, Admission, Candidates, Class, Round, Snapshot
from queues.admission.search import Patience
from queues.admission.space import Ever, Space
from queues.needs import total


class Rolling(Round):
    """A round that keeps what it has admitted and is told what ends; what still fits is remembered."""

    def __init__(self, snapshot: Snapshot, ever: Ever, candidates: Candidates, patience: Patience) -> None:
        # Shared by all futures: it hangs on how large the hosts are, which does not change.
        super().__init__(snapshot, Space(snapshot, ever, patience))
        self.reservation = snapshot.reservation
        self._known = candidates
        self._hosts = {
            host.id: (name, index)
            for name, aggregate in self.space.aggregates.items()
            for index, host in enumerate(aggregate.hosts)
        }

    def goes_somewhere(self, cls: Class) -> bool:
        """Whether time alone admits it: it is known to fit, and not beyond its owner's whole quota."""
        return bool(self._surely(cls)) and self._within_quota(cls)

    def may_be_head(self, cls: Class) -> bool:
        """Whether an aggregate may be kept for it, once its owner's quota suffices."""
        return bool(self._bounded(cls)) and self._within_quota(cls)

    def might_be_head(self, cls: Class) -> bool:
        """The same, as far as is known: a search for a place that ended too early may find one next time."""
        bounded = (self.space.ever_fits(cls.need, name, now=True) for name in self._candidates(cls))
        return any(known is not False for known in bounded) and self._within_quota(cls)

    def _within_quota(self, cls: Class) -> bool:
        """Whether its owner may hold it at all."""
        quota = self.snapshot.quotas.get((cls.queue, cls.owner), {})
        return all(amount <= quota.get(name, amount) for name, amount in total(cls.need).items())

    def alike(self, classes: Sequence[Class]) -> bool:
        """Whether all of them could go to the same aggregates, and no quota sets anybody aside."""
        if any(self.snapshot.quotas.get((each.queue, each.owner)) for each in classes):
            return False
        return len({self._surely(each) for each in classes}) <= 1

    def again(self, classes: tuple[Class, ...]) -> tuple[list[Admission], bool]:
        """Who of these is admitted now, and whether more can be at once."""
        self.snapshot = replace(self.snapshot, classes=classes, reservation=self.reservation)
        self.queues = {cls.queue for cls in classes}
        self._anew()
        decision = self.run(MOST)
        return self.admitted, decision.more or bool(self.admitted)

    def first(self, cls: Class) -> Admission | None:
        """The same for the only queue's first entry, where it blocks all others in strict mode."""
        self._anew()
        return self.admitted[0] if self._try(cls, cls.heads[0]) is None else None

    def _anew(self) -> None:
        self.closed.clear()
        self.stopped.clear()
        self.blocking.clear()
        self.reservation = self.reserved_for = None
        self.admitted, self.verdicts = [], {}

    def ended(
        self,
        queue: int,
        owner: str,
        amounts: Mapping[str, int],
        holds: Iterable[tuple[int, str, int]],
    ) -> None:
        """An entry has ended: what it held of hosts, and of its owner's quota and its queue's share."""
        for host, name, amount in holds:
            if host in self._hosts:
                self.space.give(*self._hosts[host], name, amount)
        for held in (self.held.get((queue, owner)), self.shares.get(queue)):
            if held is not None:
                for name, amount in amounts.items():
                    held[name] = held.get(name, 0) - amount
