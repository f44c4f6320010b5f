"""How long entries run: the run times of those that have ended, by owner and size. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from queues.needs import Need

Key = TypeVar("Key")

#: Fewer samples than this say too little of a class: the wider one is asked.
ENOUGH: Final = 10
#: Most samples of one class that are kept, the newest.
NEWEST: Final = 100


@dataclass(frozen=True)
class Ended:
    """An entry that ran to its end: how long it waited and ran, in s."""

    owner: str
    need: Need
    waited: float
    ran: float


class RunTimes:
    """Run times of one type: of an owner's requests of a size, else of the size, else of all."""

    def __init__(self, ended: Sequence[Ended]) -> None:
        """``ended``: the newest first."""
        self.count = len(ended)
        self._all = sorted(each.ran for each in ended)
        self._of_size = _sorted((each.need, each.ran) for each in ended)
        self._of_owner = _sorted(((each.owner, each.need), each.ran) for each in ended)
        self._mean = sum(self._all) / self.count if self.count else 0.0

    def known(self, owner: str, need: Need) -> Sequence[float]:
        """The samples of the narrowest class that has enough of them, sorted; none = there are too few."""
        for found in (self._of_owner.get((owner, need)), self._of_size.get(need), self._all):
            if found is not None and len(found) >= ENOUGH:
                return found
        return ()

    def draw(self, owner: str, need: Need, age: float, u: float, cap: float | None) -> float | None:
        """A run time longer than ``age`` (s), the one at quantile ``u`` of those; None = nothing is known.

        ``cap``: the duration that its client declared; one that has run for longer has shown it to be wrong.
        """
        samples = self.known(owner, need)
        limit = cap if cap is not None and cap > age else None
        if not samples:
            return limit
        first = bisect_right(samples, age)
        if first < len(samples):
            total = samples[first + int(u * (len(samples) - first))]
        else:
            # Nothing ever ran for so long: what has lasted lasts, half of them for 0.4 times as long again.
            total = age / (1.0 - u) ** 0.5
        return total if limit is None else min(total, limit)

    def mean(self, owner: str, need: Need) -> float:
        """The mean of its class, 1 where nothing is known: what amounts of work are compared by."""
        samples = self.known(owner, need)
        if not samples:
            return 1.0
        return self._mean if samples is self._all else sum(samples) / len(samples)


def narrowest(ended: Sequence[Ended], owner: str, need: Need, enough: int) -> list[Ended]:
    """The newest of the narrowest class of which there are enough; [] = of none."""
    of_size = [each for each in ended if each.need == need]
    of_owner = [each for each in of_size if each.owner == owner]
    for found in (of_owner, of_size, list(ended)):
        if len(found) >= enough:
            return found[:NEWEST]
    return []


def _sorted(samples: Iterable[tuple[Key, float]]) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = defaultdict(list)
    for key, seconds in samples:
        if len(found[key]) < NEWEST:
            found[key].append(seconds)
    return {key: sorted(each) for key, each in found.items()}
