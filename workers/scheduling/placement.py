"""In which order do waiting runs go, and which of them does a node take next? Pure, no database.

What a node may take at all is said by ``obstacles``. Must not import models or anything of the project but
that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.scheduling.obstacles import NodeView, ShapeView, quota_obstacle


@dataclass
class Usage:
    """What a tenant's running work holds on all nodes."""

    cpu_m: int = 0
    mem_mb: int = 0
    runs: int = 0

    def share(self, cpu_m: int, mem_mb: int) -> float:
        """The tenant's dominant share of a capacity, 0 to 1."""
        return max(self.cpu_m / max(cpu_m, 1), self.mem_mb / max(mem_mb, 1))


@dataclass(frozen=True)
class Candidate:
    """A waiting run, in the order of its shape: the lower the rank the sooner."""

    run_id: int
    rank: int


@dataclass
class Choice:
    """What a look decided. ``passed_over``: did not fit while a later or less entitled run was taken."""

    take: list[int] = field(default_factory=list)
    passed_over: set[int] = field(default_factory=set)
    reserve: int | None = None


#: A shape with what is left of its first candidates.
Queue = tuple[ShapeView, list[Candidate]]


class _Room:
    """What is left of the node, and what every tenant holds, while a look takes one run after another."""

    def __init__(
        self, node: NodeView, usage: Mapping[int, Usage], quotas: Mapping[int, int], urgent_until: int
    ) -> None:
        self.ports = set(node.taken_ports)
        self._cpu, self._mem, self._slots = node.cpu_m_free, node.mem_mb_free, node.slots_free
        self._cpu_total, self._mem_total = node.cpu_m, node.mem_mb
        self._quotas = quotas
        self._urgent_until = urgent_until
        self._held = defaultdict(
            Usage, {tenant: Usage(item.cpu_m, item.mem_mb, item.runs) for tenant, item in usage.items()}
        )

    def may(self, shape: ShapeView) -> bool:
        """Does its tenant run less than it may?"""
        running = self._held[shape.tenant_id].runs
        return quota_obstacle(running, self._quotas.get(shape.tenant_id, 0)) is None

    def fits(self, shape: ShapeView) -> bool:
        return (
            shape.cpu_m <= self._cpu
            and shape.mem_mb <= self._mem
            and self._slots > 0
            and self.ports.isdisjoint(shape.host_ports)
        )

    def order(self, queue: Queue) -> tuple[bool, float, int, int]:
        """Urgent first, then fair between tenants, then oldest."""
        shape, items = queue
        share = self._held[shape.tenant_id].share(self._cpu_total, self._mem_total)
        return (items[0].rank > self._urgent_until, share, items[0].rank, items[0].run_id)

    def take(self, queue: Queue) -> Candidate:
        shape, items = queue
        self._cpu -= shape.cpu_m
        self._mem -= shape.mem_mb
        self._slots -= 1
        self.ports.update(shape.host_ports)
        tenant = self._held[shape.tenant_id]
        tenant.cpu_m += shape.cpu_m
        tenant.mem_mb += shape.mem_mb
        tenant.runs += 1
        return items.pop(0)


def choose(
    node: NodeView,
    queues: Sequence[tuple[ShapeView, Sequence[Candidate]]],
    usage: Mapping[int, Usage],
    *,
    now_us: int,
    aging_us: int,
    limit: int,
    overdue: Mapping[int, float],
    reserved_elsewhere: frozenset[int] = frozenset(),
    quotas: Mapping[int, int] | None = None,
) -> Choice:
    """Pick up to ``limit`` runs for the node, in order: urgent first, then fair between tenants, then oldest.

    A run is urgent when its rank lies further back than the aging time: high priority at once, normal work
    after it has waited that long. ``queues`` holds per shape its first candidates. ``overdue`` names runs
    that were passed over for too long, with when that began: the first of them gets the node to itself until
    it fits. ``node.reserved_for`` is such a run from an earlier look. ``quotas`` says how many runs a tenant
    may run at once; one that does is left aside, whatever it waits for. A run that waits for a host port
    never keeps the node from others, only its ports: their holder may run for weeks.
    """
    choice = Choice()
    room = _Room(node, usage, quotas or {}, now_us - aging_us)
    waiting: list[Queue] = [(shape, list(items)) for shape, items in queues if items]

    # What was passed over too long goes first; until it fits, nothing else may use what becomes free here.
    for queue in _entitled(waiting, node, overdue, reserved_elsewhere):
        shape = queue[0]
        if not room.may(shape):
            continue
        if not room.ports.isdisjoint(shape.host_ports):
            room.ports.update(shape.host_ports)
            continue
        if not room.fits(shape):
            choice.reserve = queue[1][0].run_id
            return choice
        if len(choice.take) < limit:
            choice.take.append(room.take(queue).run_id)

    while len(choice.take) < limit:
        fitting = [queue for queue in waiting if queue[1] and room.fits(queue[0]) and room.may(queue[0])]
        if not fitting:
            break
        best = min(fitting, key=room.order)
        order, ports = room.order(best), frozenset(room.ports)
        chosen = room.take(best)
        choice.take.append(chosen.run_id)
        choice.passed_over.update(
            items[0].run_id
            for shape, items in waiting
            if items
            and room.may(shape)
            and not room.fits(shape)
            and (items[0].rank < chosen.rank or room.order((shape, items)) < order)
            and _loses(shape, best[0], ports)
        )
    return choice


def _entitled(
    waiting: Sequence[Queue], node: NodeView, overdue: Mapping[int, float], reserved_elsewhere: frozenset[int]
) -> list[Queue]:
    """The queues whose head this node is kept for, or was passed over for too long, in that order."""
    found = [
        entry
        for entry in waiting
        if entry[1][0].run_id == node.reserved_for
        or (entry[1][0].run_id in overdue and entry[1][0].run_id not in reserved_elsewhere)
    ]
    found.sort(
        key=lambda entry: (entry[1][0].run_id != node.reserved_for, overdue.get(entry[1][0].run_id, 0.0))
    )
    return found


def _loses(shape: ShapeView, taken: ShapeView, held: frozenset[str]) -> bool:
    """Does a shape that does not fit lose something to one that was taken instead of it?

    Not while it waits for a port that was held (``held``) anyhow, unless the other one took its ports too.
    """
    waits = not shape.host_ports.isdisjoint(held)
    return not waits or not shape.host_ports.isdisjoint(taken.host_ports)
