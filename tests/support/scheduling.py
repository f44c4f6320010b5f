"""Hands out tests to the workers of pytest-xdist pass by pass (tests.support.passes).

In passes 1 and 2 a worker takes a file; when none is left, it takes half of what is left of somebody
else's. When there is nothing to take either, it begins with the next pass: nobody waits for the longest. In
pass 3 it takes a test. Pass 4 begins when everything else has ended, and has one worker. Unlike xdist's own
this one gives no test twice: the one that a worker died of has failed, and the rest of what that worker had
goes to the others.

A worker begins a test when it knows the next one. The last item of every worker's list is a barrier, which
does nothing: it follows where nothing else is known yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.support.passes import ALONE, FAULTS, PURE, Place


class Worker(Protocol):
    """What is needed of xdist's ``WorkerController``."""

    @property
    def shutting_down(self) -> bool: ...

    def send_runtest_some(self, indices: Sequence[int]) -> None: ...


@dataclass
class _Group:
    tests: deque[int]
    whole: bool


@dataclass
class _Hands:
    """What one worker has: the tests that it was told of and has not finished, and their group."""

    told: list[int] = field(default_factory=list)
    group: _Group = field(default_factory=lambda: _Group(deque(), whole=False))


class PassScheduling:
    """Implements ``xdist.scheduler.protocol.Scheduling``."""

    def __init__(self, count: int, plan: Callable[[], list[Place]]) -> None:
        self._count = count
        self._read_plan = plan
        self._hands: dict[Any, _Hands] = {}
        self._collections: dict[Any, list[str]] = {}
        self._agreed: list[str] | None = None
        self._plan: list[Place] = []
        self._later: deque[tuple[int, deque[_Group]]] = deque()
        self._pass = PURE
        self._queue: deque[_Group] = deque()

    # --- what xdist asks ---------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Any]:
        return list(self._hands)

    @property
    def collection_is_completed(self) -> bool:
        return self._agreed is not None or len(self._collections) >= self._count

    @property
    def tests_finished(self) -> bool:
        return self._agreed is not None and not (self._later or self._pass_has_tests())

    @property
    def has_pending(self) -> bool:
        return self._agreed is not None and not self.tests_finished

    # --- what xdist tells --------------------------------------------------------------------------------

    def add_node(self, node: Any) -> None:
        self._hands[node] = _Hands()

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        self._collections[node] = list(collection)

    def schedule(self) -> None:
        """Every worker has collected; called again when one came that replaces a dead one."""
        if self._agreed is None:
            self._agreed = next(iter(self._collections.values()))
            self._plan = self._read_plan()
            planned = [place.id for place in self._plan]
            if self._agreed[: len(planned)] != planned:
                raise RuntimeError("the plan is not of the tests that were collected")
            self._divide()
        for node, collection in self._collections.items():
            if collection != self._agreed:
                found = sorted(set(collection) ^ set(self._agreed))[:10]
                raise RuntimeError(f"{node} collected other tests, or in another order: {found}")
        self._feed()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        self._hands[node].told.remove(item_index)
        self._feed()

    def remove_node(self, node: Any) -> str | None:
        """It ended: the test that it died of, if any. What else it had, others do."""
        hands = self._hands.pop(node)
        self._collections.pop(node, None)
        tests = [index for index in hands.told if index != self._barrier]
        left = deque([*tests[1:], *hands.group.tests])
        if left:
            self._queue.appendleft(_Group(left, hands.group.whole))
        self._feed()
        return self._plan[tests[0]].id if tests else None

    def mark_test_pending(self, item: str) -> None:
        raise NotImplementedError("nobody asks for a test again here")

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        raise NotImplementedError("nothing is stolen here")

    # --- how it is done ----------------------------------------------------------------------------------

    @property
    def _barrier(self) -> int:
        return len(self._plan)

    def _divide(self) -> None:
        groups: dict[int, dict[str, _Group]] = {}
        for index, place in enumerate(self._plan):
            found = groups.setdefault(place.number, {}).setdefault(place.group, _Group(deque(), place.whole))
            found.tests.append(index)
        self._later = deque((number, deque(of.values())) for number, of in sorted(groups.items()))

    def _pass_has_tests(self) -> bool:
        return bool(self._queue) or any(
            hands.group.tests or self._unfinished(hands) for hands in self._hands.values()
        )

    def _unfinished(self, hands: _Hands) -> int:
        return sum(index != self._barrier for index in hands.told)

    def _feed(self) -> None:
        if self._agreed is None:
            return
        if not self._pass_has_tests() and self._later:
            self._pass, self._queue = self._later.popleft()
        ready = [node for node in self._hands if node in self._collections and not node.shutting_down]
        for node in ready[:1] if self._pass == ALONE else ready:
            self._fill(node)

    @property
    def _depth(self) -> int:
        return 3 if self._pass == PURE else 1 if self._pass in (FAULTS, ALONE) else 2

    def _fill(self, node: Any) -> None:
        """Tell a worker of so many tests that it never waits for us, and of no more than that."""
        hands = self._hands[node]
        more: list[int] = []
        while self._unfinished(hands) < self._depth and self._take(hands):
            more.append(hands.group.tests.popleft())
            hands.told.append(more[-1])
        if self._unfinished(hands) == 1 and hands.told[-1] != self._barrier:
            more.append(self._barrier)
            hands.told.append(self._barrier)
        if more:
            node.send_runtest_some(more)

    def _take(self, hands: _Hands) -> bool:
        """Is there a test for it in its group, if need be a new one?"""
        if hands.group.tests:
            return True
        if self._unfinished(hands) and self._pass != PURE:
            return False  # perhaps a long one: the next group is for whoever has finished first
        if self._queue:
            hands.group = self._queue.popleft()
            return True
        others = [other.group for other in self._hands.values() if not other.group.whole]
        largest = max(others, key=lambda group: len(group.tests), default=hands.group)
        half = (len(largest.tests) + 1) // 2
        hands.group = _Group(deque(largest.tests.pop() for _ in range(half)), whole=False)
        hands.group.tests.reverse()
        if half or self._unfinished(hands) or not self._later or self._later[0][0] == ALONE:
            return bool(half)
        self._pass, self._queue = self._later.popleft()
        return self._take(hands)
