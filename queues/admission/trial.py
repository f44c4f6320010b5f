"""The decision as far as one class is concerned: the same lot, told as soon as it is known. Pure.

An explanation asks ten times or so, of snapshots that differ in one thing. What hangs on an aggregate alone
is worked out once for all of them, and a round ends when nothing that follows can change the lot asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from queues.admission.decide import Aggregate, Class, Decision, Head, Level, Round, Snapshot, Verdict
from queues.admission.lines import Lines
from queues.admission.packing import Packed
from queues.admission.space import Space
from queues.needs import Need

#: All that one decision admits at most, so that the turn of the class comes if it can.
_ALL: Final = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """What packing told, in how many steps of a search that might have taken so many."""

    packed: Packed
    steps: int
    limit: int

    def holds(self, limit: int) -> bool:
        """Whether a search that may take so many steps tells nothing else."""
        if not self.steps:
            return True
        return self.steps <= limit if self.packed.sure else limit <= self.limit


@dataclass
class Place:
    """An aggregate as a snapshot has it: what fits when it is empty (as large as now), and now (None)."""

    aggregate: Aggregate
    known: dict[tuple[Need, bool | None], Known] = field(default_factory=dict)


#: Shared by the trials of one question, by the identity of the aggregates, which they keep.
Places = dict[int, Place]
#: What is told of the others.
_UNTOLD: Final = Verdict(Level.EVALUATING)


def tried(snapshot: Snapshot, class_id: int, places: Places) -> Decision:
    """The decision; right about the lot of this class and the reservation, silent about the others."""
    return Trial(snapshot, class_id, places).run(_ALL)


class SharedSpace(Space):
    """A space that knows what others found out about the same aggregates.

    What they spent on it is spent here, too: so no trial has more patience than its decision has.
    """

    def __init__(self, snapshot: Snapshot, places: Places) -> None:
        super().__init__(snapshot)
        self._places = {
            name: places.setdefault(id(each), Place(each)) for name, each in self.aggregates.items()
        }
        #: Without those where something was taken or given: what fits there is this round's own business.
        self._untouched = dict(self._places)

    def _pack_free(self, need: Need, name: str) -> Packed:
        there = self._untouched.get(name)
        if there is None:
            return super()._pack_free(need, name)
        return self._recalled(there, (need, None), super()._pack_free, name)

    def _pack_empty(self, need: Need, name: str, *, now: bool) -> Packed:
        find = partial(super()._pack_empty, now=now)
        return self._recalled(self._places[name], (need, now), find, name)

    def _recalled(
        self, there: Place, key: tuple[Need, bool | None], find: Callable[[Need, str], Packed], name: str
    ) -> Packed:
        limit = self._patience.share()
        found = there.known.get(key)
        if found is not None and found.holds(limit):
            self._patience.spend(min(found.steps, limit))
            return found.packed
        spent = self._patience.spent
        packed = find(key[0], name)
        there.known[key] = Known(packed, self._patience.spent - spent, limit)
        return packed

    def _changed(self, name: str) -> None:
        super()._changed(name)
        self._untouched.pop(name, None)


class Trial(Round):
    """A round that ends when the lot of one class is known."""

    def __init__(self, snapshot: Snapshot, class_id: int, places: Places) -> None:
        super().__init__(snapshot, SharedSpace(snapshot, places))
        self._cls = next(each for each in snapshot.classes if each.id == class_id)
        self._told = False

    def _next(self, lines: Lines) -> tuple[Class, Head] | None:
        """The next one whose turn matters."""
        if self._told or not self._candidates(self._cls):
            return None
        if self.snapshot.strict and len(self.closed) == len(self.space.aggregates):
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
        self._told = self._told or cls.id == self._cls.id
