"""The waiting classes in the order in which their entries are looked at. Pure.

Within a queue by (Priority, hidden key); between queues the one that holds the smaller share goes first, of
equal ones the one whose first entry has waited longest. One that was passed over stays the first entry of its
queue: so the turns do not depend on how often it was looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from queues.admission.terms import Class, Head

_Key = tuple[int, str, int]


class Lines:
    """A line of classes for each queue. ``share`` may change for the queue that is next."""

    def __init__(self, classes: tuple[Class, ...], share: Callable[[int], float]) -> None:
        self._share = share
        self._classes = {cls.id: cls for cls in classes}
        self._at = {cls.id: 0 for cls in classes}
        self._dropped: list[Class] = []
        #: Queue -> the first of those of it that were dropped.
        self._passed: dict[int, _Key] = {}
        self._lines: dict[int, list[_Key]] = {}
        #: The queues with a line, the next one first.
        self._turns: list[tuple[float, float, int]] = []
        self._line_up(cls for cls in classes if cls.heads)

    def next(self) -> tuple[Class, Head] | None:
        """The entry whose turn it is; None = nobody is left."""
        return self._first(self._turns[0][2]) if self._turns else None

    def drop(self, cls: Class) -> None:
        """Nothing more of this class, whose first entry is the one that ``next`` gave."""
        self._passed.setdefault(cls.queue, self._key(cls))
        self._dropped.append(cls)
        self._leave(cls)

    def advance(self, cls: Class) -> bool:
        """Its first entry, the one that ``next`` gave, is admitted; False when its next one is not known."""
        self._at[cls.id] += 1
        known = self._at[cls.id] < len(cls.heads)
        self._leave(cls, again=known)
        return known or cls.count <= len(cls.heads)

    def restore(self) -> None:
        """All that were dropped are looked at again."""
        dropped, self._dropped = self._dropped, []
        self._passed.clear()
        self._line_up(dropped)

    def waits(self, cls: Class) -> bool:
        """Whether an entry of it has not been admitted."""
        return self._at[cls.id] < cls.count

    def head(self, cls: Class) -> Head:
        """Its first entry that has not been admitted, of one that waits; of unknown ones the last known."""
        return cls.heads[min(self._at[cls.id], len(cls.heads) - 1)]

    def before(self, cls: Class) -> list[Class]:
        """The classes of its queue whose first entry stands before its own."""
        mine = self._key(cls)
        return [self._classes[key[2]] for key in sorted(self._lines.get(cls.queue, [])) if key < mine]

    def _line_up(self, classes: Iterable[Class]) -> None:
        for cls in classes:
            heapq.heappush(self._lines.setdefault(cls.queue, []), self._key(cls))
        self._turns = [self._turn(queue) for queue, line in self._lines.items() if line]
        heapq.heapify(self._turns)

    def _leave(self, cls: Class, *, again: bool = False) -> None:
        line = self._lines[cls.queue]
        heapq.heappop(line)
        if again:
            heapq.heappush(line, self._key(cls))
        if line:
            heapq.heapreplace(self._turns, self._turn(cls.queue))
        else:
            heapq.heappop(self._turns)

    def _turn(self, queue: int) -> tuple[float, float, int]:
        first = self._lines[queue][0]
        cls = self._classes[min(first, self._passed.get(queue, first))[2]]
        return self._share(queue), cls.heads[self._at[cls.id]].since, queue

    def _first(self, queue: int) -> tuple[Class, Head]:
        cls = self._classes[self._lines[queue][0][2]]
        return cls, cls.heads[self._at[cls.id]]

    def _key(self, cls: Class) -> _Key:
        head = cls.heads[self._at[cls.id]]
        return head.priority, head.tie, cls.id
