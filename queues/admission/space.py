"""What is free while a decision goes on, and what fits into it: asked often, so remembered. Pure."""

from __future__ import annotations

from queues.admission import packing
from queues.admission.packing import Packed, Placement
from queues.admission.search import Patience
from queues.admission.terms import Aggregate, Snapshot
from queues.needs import Need

#: Whether a need fits on an aggregate's empty hosts (as large as they are now); None = not known.
Ever = dict[tuple[Need, str, bool], bool | None]


class Space:
    """The hosts of all aggregates. ``ever`` and ``patience``: of several that see the same hosts."""

    def __init__(
        self, snapshot: Snapshot, ever: Ever | None = None, patience: Patience | None = None
    ) -> None:
        self.aggregates: dict[str, Aggregate] = {each.name: each for each in snapshot.aggregates}
        self.free = {name: [dict(host.free) for host in each.hosts] for name, each in self.aggregates.items()}
        self.capacity = snapshot.capacity()
        self._ever: Ever = {} if ever is None else ever
        self._patience = patience or Patience()
        # Of what is free there, until that changes.
        self._packed: dict[str, dict[Need, Packed]] = {name: {} for name in self.aggregates}
        self._rooms: dict[str, float] = {}

    def pack(self, need: Need, name: str) -> Packed:
        """Where all instances go on what is free."""
        known = self._packed[name]
        found = known.get(need)
        if found is None:
            found = known[need] = self._pack_free(need, name)
        return found

    def fits(self, need: Need, name: str) -> bool:
        """Whether a place for all instances was found."""
        return self.pack(need, name).placed is not None

    def ever_fits(self, need: Need, name: str, *, now: bool = False) -> bool | None:
        """Whether it fits on empty hosts, as large as they ever were or as they are now; None: unknown."""
        key = (need, name, now)
        if key not in self._ever:
            found = self._pack_empty(need, name, now=now)
            self._ever[key] = found.placed is not None if found.sure else None
        return self._ever[key]

    def take(self, name: str, placed: Placement) -> None:
        """It is not free any more."""
        for index, count, size in placed:
            for resource, amount in size:
                self.free[name][index][resource] -= count * amount
        self._changed(name)

    def give(self, name: str, index: int, resource: str, amount: int) -> None:
        """An amount on a host is free again."""
        free = self.free[name][index]
        free[resource] = free.get(resource, 0) + amount
        self._changed(name)

    def room(self, name: str) -> tuple[float, str]:
        """How much is free in an aggregate, as a share of all: the fullest that suffices is taken."""
        if name not in self._rooms:
            self._rooms[name] = sum(
                max(amount, 0) / self.capacity[key]
                for host in self.free[name]
                for key, amount in host.items()
                if self.capacity.get(key)
            )
        return self._rooms[name], name

    def lack(self, need: Need, name: str) -> tuple[int, float, str]:
        """How far an aggregate is from holding a request: instances without a host, and the missing share."""
        free = self.free[name]
        return packing.missing(need, free), packing.short(need, free, self.capacity), name

    def _pack_free(self, need: Need, name: str) -> Packed:
        return packing.pack(need, self.free[name], self._patience)

    def _pack_empty(self, need: Need, name: str, *, now: bool) -> Packed:
        hosts = self.aggregates[name].hosts
        return packing.pack(need, [host.total if now else host.largest for host in hosts], self._patience)

    def _changed(self, name: str) -> None:
        self._packed[name].clear()
        self._rooms.pop(name, None)
