"""The decision as far as one class is concerned: the same lot, told as soon as it is known. Pure.

An explanation asks ten times or so, of snapshots that differ in one thing. What hangs on an aggregate alone
is worked out once for all of them, and a round ends when nothing that follows can change the lot asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from queues.admission import packing
from queues.admission.decide import Aggregate, Class, Decision, Head, Level, Round, Snapshot, Verdict
from queues.admission.lines import Lines
from queues.needs import Need

#: All that one decision admits at most, so that the turn of the class comes if it can.
_ALL: Final = 10_000


@dataclass
class Place:
    """An aggregate as a snapshot has it: what fits there at first, and ever (need, as large as now)."""

    aggregate: Aggregate
    fit: dict[Need, packing.Placement | None] = field(default_factory=dict)
    ever: dict[tuple[Need, bool], bool] = field(default_factory=dict)


#: Shared by the trials of one question, by the identity of the aggregates, which they keep.
Places = dict[int, Place]
#: What is told of the others.
_UNTOLD: Final = Verdict(Level.EVALUATING)


def tried(snapshot: Snapshot, class_id: int, places: Places) -> Decision:
    """The decision; right about the lot of this class and the reservation, silent about the others."""
    return Trial(snapshot, class_id, places).run(_ALL)


class Trial(Round):
    """A round that ends when the lot of one class is known."""

    def __init__(self, snapshot: Snapshot, class_id: int, places: Places) -> None:
        super().__init__(snapshot)
        self._cls = next(each for each in snapshot.classes if each.id == class_id)
        self._places = {
            name: places.setdefault(id(each), Place(each)) for name, each in self.aggregates.items()
        }
        #: Without those to which something was admitted: what fits there is this round's own business.
        self._untouched = dict(self._places)
        self._known: dict[tuple[Need, str, int], tuple[str, ...]] = {}
        self._told = False

    def _next(self, lines: Lines) -> tuple[Class, Head] | None:
        """The next one whose turn matters."""
        if self._told or not self._candidates(self._cls):
            return None
        if self.snapshot.strict and len(self.closed) == len(self.aggregates):
            # Nobody goes anywhere any more, so nobody opens anything: what is left is what it is told, which
            # those of its owner that are before it have a say in.
            if self._cls.id not in self.verdicts:
                before = [each for each in lines.before(self._cls) if each.owner == self._cls.owner]
                for each in (*before, self._cls):
                    if (verdict := self._try(each, lines.head(each))) is not None:
                        self.verdicts[each.id] = verdict
            return None
        return lines.next()

    def _afterwards(self, cls: Class, head: Head) -> Verdict:
        return super()._afterwards(cls, head) if cls.id == self._cls.id else _UNTOLD

    def _admit(self, cls: Class, head: Head, name: str) -> None:
        super()._admit(cls, head, name)
        self._untouched.pop(name, None)
        self._told = self._told or cls.id == self._cls.id

    def _place(self, need: Need, name: str) -> packing.Placement | None:
        if name not in self._untouched:
            return super()._place(need, name)
        fit = self._untouched[name].fit
        if need not in fit:
            fit[need] = super()._place(need, name)
        return fit[need]

    def _candidates(self, cls: Class) -> tuple[str, ...]:
        key = (cls.need, cls.bound, cls.tenant)
        if key not in self._known:
            self._known[key] = super()._candidates(cls)
        return self._known[key]

    def _could_ever(self, need: Need, name: str, *, now: bool = False) -> bool:
        ever = self._places[name].ever
        if (need, now) not in ever:
            ever[need, now] = super()._could_ever(need, name, now=now)
        return ever[need, now]
