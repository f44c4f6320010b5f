"""The words of a decision: what it is asked (a snapshot) and what it answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from queues.needs import Need, Size


class Level(StrEnum):
    """Why an entry waits. The strongest first: what somebody has to change comes before time."""

    PROVIDER = "provider"  # what there is cannot be told now
    MISCONFIGURED = "misconfigured"  # there is no aggregate where it may go, or none with such a resource
    NEVER_FITS = "never_fits"  # larger than the largest there ever was
    OVER_QUOTA = "over_quota"  # its owner holds as much as it may
    BEHIND = "behind"  # somebody before it blocks where it could go
    NO_CAPACITY = "no_capacity"  # what is free does not suffice
    EVALUATING = "evaluating"  # nothing is in its way: the next look admits it


@dataclass(frozen=True)
class Host:
    """``free`` may be below 0; ``largest`` is the most there ever was."""

    id: int
    name: str
    free: Mapping[str, int]
    total: Mapping[str, int]
    largest: Mapping[str, int]


@dataclass(frozen=True)
class Aggregate:
    """``tenants``: ids of those who may use it; None = all. A removed one has no host with anything free."""

    name: str
    hosts: tuple[Host, ...]
    tenants: frozenset[int] | None = None
    removed: bool = False

    def open_to(self, cls: Class) -> bool:
        """Whether an entry of a class may go there at all."""
        return cls.bound in ("", self.name) and (self.tenants is None or cls.tenant in self.tenants)


@dataclass(frozen=True)
class Head:
    """A waiting entry, as far as it matters here."""

    id: int
    priority: int
    tie: str
    #: Seconds since 1970.
    since: float = 0.0


@dataclass(frozen=True)
class Class:
    """Entries that are the same to admission. ``heads``: the first of them, in order; ``count``: all."""

    id: int
    queue: int
    tenant: int
    owner: str
    need: Need
    bound: str
    heads: tuple[Head, ...]
    count: int


@dataclass(frozen=True)
class Reservation:
    """Best effort: this aggregate is kept for this entry. ``since``: seconds since 1970."""

    entry: int
    aggregate: str
    since: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """All that a decision depends on. ``held`` and ``quotas``: (queue, owner) -> {resource: amount}."""

    strict: bool
    aggregates: tuple[Aggregate, ...]
    classes: tuple[Class, ...]
    held: Mapping[tuple[int, str], Mapping[str, int]] = field(default_factory=dict)
    quotas: Mapping[tuple[int, str], Mapping[str, int]] = field(default_factory=dict)
    #: Queue -> what all its owners hold, also those of whom nothing waits.
    shares: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    reservation: Reservation | None = None
    #: Why nothing can be known of the capacity; "" = it is known.
    trouble: str = ""
    #: More classes wait than are looked at.
    approximate: bool = False

    def capacity(self) -> dict[str, int]:
        """All there is of each resource."""
        found: dict[str, int] = {}
        for aggregate in self.aggregates:
            for host in aggregate.hosts:
                for name, amount in host.total.items():
                    found[name] = found.get(name, 0) + amount
        return found


@dataclass(frozen=True)
class Admission:
    """One entry that is admitted: where each of its instances goes."""

    entry: int
    cls: Class
    aggregate: str
    #: (id of the host, how many, size).
    places: tuple[tuple[int, int, Size], ...]


@dataclass(frozen=True)
class Verdict:
    """Why the first entry of a class that was not admitted waits."""

    level: Level
    #: Names of the aggregates where it could ever go.
    candidates: tuple[str, ...] = ()
    #: The entry that blocks it, where one does.
    blocked_by: int | None = None
    #: Over quota: the resource.
    resource: str = ""
    #: Aggregates where the search for a place ended before all was tried: there may be one.
    unsure: tuple[str, ...] = ()
    #: Not even whether it fits on empty hosts is known: it is tried again and again, and blocks nobody.
    doubtful: bool = False


@dataclass(frozen=True)
class Decision:
    """``more``: the next look, at once, can admit more. ``verdicts``: class id -> why its next one waits."""

    admitted: tuple[Admission, ...]
    verdicts: Mapping[int, Verdict]
    reservation: Reservation | None
    more: bool
