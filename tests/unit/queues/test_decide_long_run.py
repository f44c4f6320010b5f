"""Best effort over a long time, in virtual time: the largest request in an endless stream of small ones."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest

from queues.admission.decide import Admission, Aggregate, Class, Head, Host, Reservation, Snapshot, decide
from queues.needs import Need
from tests.unit.queues.deciding import gang

LARGE = 1
SMALL = (gang(1, cpu=1), gang(1, cpu=2), gang(2, cpu=1))
#: Aggregates of hosts with so many cpus: the largest request takes all of b or of c, and never fits on a.
HOSTS = {"a": (4, 4), "b": (4, 4, 4), "c": (4, 4, 4)}


@dataclass
class House:
    """What runs and what waits; ``waits``: (entry, since, tenant, owner, need) in order."""

    chance: random.Random
    now: float = 0.0
    waits: list[tuple[int, float, int, str, Need]] = field(default_factory=list)
    #: (end, entry, what it took, tenant), by end.
    runs: list[tuple[float, int, Admission, int]] = field(default_factory=list)
    reservation: Reservation | None = None
    started: dict[int, float] = field(default_factory=dict)
    last: int = LARGE

    def snapshot(self) -> Snapshot:
        free = {(name, index): size for name, sizes in HOSTS.items() for index, size in enumerate(sizes)}
        shares: dict[int, dict[str, int]] = {}
        for _, _, what, tenant in self.runs:
            for id_, count, size in what.places:
                taken = count * dict(size)["cpu"]
                free[what.aggregate, id_] -= taken
                held = shares.setdefault(tenant, {"cpu": 0})
                held["cpu"] += taken
        there = tuple(
            Aggregate(
                name,
                tuple(
                    Host(index, str(index), {"cpu": free[name, index]}, {"cpu": size}, {"cpu": size})
                    for index, size in enumerate(sizes)
                ),
            )
            for name, sizes in HOSTS.items()
        )
        classes: dict[tuple[int, str, Need], list[Head]] = {}
        for entry, since, tenant, owner, need in self.waits:
            classes.setdefault((tenant, owner, need), []).append(Head(entry, entry, "V", since))
        return Snapshot(
            strict=False,
            aggregates=there,
            classes=tuple(
                Class(heads[0].id, tenant, tenant, owner, need, "", tuple(heads[:5]), len(heads))
                for (tenant, owner, need), heads in classes.items()
            ),
            shares=shares,
            reservation=self.reservation,
        )

    def look(self) -> None:
        more = True
        while more:
            decision = decide(self.snapshot())
            gone = {each.entry: each for each in decision.admitted}
            for entry, _, tenant, _, _ in self.waits:
                if entry in gone:
                    self.started[entry] = self.now
                    length = 50.0 if entry == LARGE else self.chance.expovariate(1 / 10)
                    heapq.heappush(self.runs, (self.now + length, entry, gone[entry], tenant))
            self.waits = [each for each in self.waits if each[0] not in gone]
            self.reservation = decision.reservation
            more = decision.more

    def step(self) -> None:
        """To the next end of a run; so many new ones come that there is always one that waits."""
        self.now = heapq.heappop(self.runs)[0]
        self.fill()
        self.look()

    def fill(self) -> None:
        while len(self.waits) < 12:
            self.last += 1
            tenant, owner = self.chance.choice([(1, "o"), (1, "p"), (2, "o")])
            self.waits.append((self.last, self.now, tenant, owner, self.chance.choice(SMALL)))


@pytest.mark.parametrize("seed", range(6))
def test_the_largest_request_is_admitted_when_what_ran_there_has_ended(seed: int) -> None:
    """Catches: a bound that somebody behind moves, a reservation that wanders, an endless wait.

    The bound is read at the moment of the reservation: the last end of what runs in its aggregate then.
    """
    house = House(random.Random(seed))
    house.fill()
    house.look()
    for _ in range(40):
        house.step()
    assert LARGE not in house.started
    house.waits.append((LARGE, house.now, 1, "large", gang(3, cpu=4)))
    house.waits.sort()
    house.look()
    for _ in range(100):  # until the one for which something is kept now has started
        kept = house.reservation
        if kept is not None and kept.entry == LARGE:
            break
        house.step()
    else:
        raise AssertionError("nothing is ever kept for it")
    assert kept.aggregate in "bc"
    bound = max(end for end, _, what, _ in house.runs if what.aggregate == kept.aggregate)
    passed = len(house.started)
    while LARGE not in house.started:
        assert house.reservation == kept
        house.step()
        assert house.now <= bound
    assert house.started[LARGE] <= bound
    assert len(house.started) - passed > 5  # others went on elsewhere
    assert house.reservation is None or house.reservation.entry != LARGE


def test_large_ones_of_two_tenants_come_one_after_the_other() -> None:
    """Catches: a second large request that waits for ever behind the first one's reservations."""
    house = House(random.Random(3))
    house.fill()
    house.look()
    wanted = [-3, -2, -1]
    for entry in wanted:
        house.waits.append((entry, house.now, 1 + entry % 2, "large", gang(3, cpu=4)))
    house.waits.sort()
    for _ in range(3000):
        house.step()
        if all(entry in house.started for entry in wanted):
            break
    assert all(entry in house.started for entry in wanted)
