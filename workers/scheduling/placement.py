"""May this node take this shape, and in which order do waiting runs go? Pure functions, no database.

Claiming decides with them and explain tells with them: one definition of "may take".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: The attribute that every node has and no other node shares: its name.
NODE_ATTRIBUTE: Final = "node"


@dataclass(frozen=True)
class ShapeView:
    """What a run asks of a node; immutable like the row it was read from."""

    id: int
    tenant_id: int
    kind: str
    cpu_m: int
    mem_mb: int
    constraints: Mapping[str, Sequence[str]]
    trusted: bool
    #: Fixed ports of the host, "8080/tcp".
    host_ports: frozenset[str] = frozenset()


@dataclass(frozen=True)
class NodeView:
    """A node as placement sees it: what it has, what is free, whether it takes work."""

    id: int
    name: str
    mode: str
    silent_s: float | None
    trouble: str
    runtimes: frozenset[str]
    attributes: Mapping[str, str]
    isolates_users: bool
    cpu_m: int
    cpu_m_free: int
    mem_mb: int
    mem_mb_free: int
    slots_free: int
    #: Its worker said goodbye: nobody is silent there, nobody is there.
    stopped: bool = False
    reserved_for: int | None = None
    #: Host port -> tenant whose run holds it.
    taken_ports: Mapping[str, int] = field(default_factory=dict)
    #: Kind of run -> why its runtime takes no work here now; other kinds go on.
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Obstacle:
    """One reason why a node cannot take a shape. ``passing`` obstacles vanish by themselves."""

    code: str
    message: str
    remedy: str
    passing: bool = False
    need: float | None = None
    free: float | None = None
    quota: float | None = None


def obstacles(shape: ShapeView, node: NodeView) -> list[Obstacle]:
    """Everything that keeps this node from taking this shape now, strongest first; empty = it fits."""
    if node.mode == "removed":
        return [Obstacle("node_removed", f"node {node.name} was removed", "add a node")]
    return _lasting(shape, node) or _now(shape, node)


def _lasting(shape: ShapeView, node: NodeView) -> list[Obstacle]:
    """What will not change by waiting: attributes, runtimes, size."""
    found: list[Obstacle] = []
    for name, values in shape.constraints.items():
        if node.attributes.get(name) not in values:
            listed = ", ".join(values)
            found.append(
                Obstacle(
                    "constraint",
                    f"node {node.name} has {name} {node.attributes.get(name, '(none)')}, "
                    f"not one of [{listed}]",
                    f"start a node with {name}={values[0]}, or submit without this constraint",
                )
            )
    if shape.kind not in node.runtimes:
        found.append(
            Obstacle(
                "runtime",
                f"node {node.name} offers no {shape.kind} runtime",
                "start a node with a Docker Engine"
                if shape.kind == "container"
                else f"start a node that offers {shape.kind}",
            )
        )
    elif shape.kind == "process" and not node.isolates_users and not shape.trusted:
        found.append(
            Obstacle(
                "not_isolated",
                f"node {node.name} runs commands as its own user, which this tenant may not use",
                "run the worker as root, so that each command gets a user of its own",
            )
        )
    if shape.cpu_m > node.cpu_m:
        found.append(_lacks("cpu_total", node, "CPU", shape.cpu_m / 1000, node.cpu_m / 1000, "has", False))
    if shape.mem_mb > node.mem_mb:
        found.append(_lacks("mem_total", node, "MiB of memory", shape.mem_mb, node.mem_mb, "has", False))
    return found


def _now(shape: ShapeView, node: NodeView) -> list[Obstacle]:
    """What keeps a node that could hold the shape from taking it at this moment."""
    found: list[Obstacle] = []
    if node.mode == "draining":
        found.append(Obstacle("draining", f"node {node.name} is draining", "undrain it or add a node"))
    if node.silent_s is not None:
        found.append(_silent(node, node.silent_s))
    if node.trouble:
        found.append(
            Obstacle("trouble", f"node {node.name} takes no work: {node.trouble}", "repair that", True)
        )
    elif words := node.troubles.get(shape.kind):
        message = f"node {node.name} takes no {shape.kind} work: {words}"
        found.append(Obstacle("trouble", message, "repair that", True))
    if shape.cpu_m > node.cpu_m_free:
        found.append(_lacks("cpu", node, "CPU", shape.cpu_m / 1000, node.cpu_m_free / 1000, "has free", True))
    if shape.mem_mb > node.mem_mb_free:
        found.append(_lacks("mem", node, "MiB of memory", shape.mem_mb, node.mem_mb_free, "has free", True))
    if node.slots_free < 1:
        found.append(
            Obstacle(
                "slots",
                f"node {node.name} runs as many things as it may at once",
                "wait, or raise GANTRY_NODE_SLOTS",
                True,
            )
        )
    found += [_taken(shape, node, port) for port in sorted(shape.host_ports & node.taken_ports.keys())]
    return found


def _taken(shape: ShapeView, node: NodeView, port: str) -> Obstacle:
    mine = node.taken_ports[port] == shape.tenant_id
    return Obstacle(
        "host_port",
        f"host port {port} is taken on node {node.name} by "
        + ("another of your runs" if mine else "another tenant's run"),
        "wait for that run to end, or submit it with another hostPort (0 = any)",
        True,
    )


def _silent(node: NodeView, silent_s: float) -> Obstacle:
    if node.stopped:
        message = f"the worker of node {node.name} was stopped {silent_s:.0f} s ago"
        return Obstacle("silent", message, "start it again on that machine: make worker", True)
    message = f"node {node.name} has been silent for {silent_s:.0f} s"
    return Obstacle("silent", message, "look at the worker on that machine", True)


def _lacks(
    code: str, node: NodeView, what: str, need: float, free: float, verb: str, passing: bool
) -> Obstacle:
    remedy = "wait for running work to end" if passing else "ask for less, or start a larger node"
    return Obstacle(
        code, f"it needs {need:g} {what}, node {node.name} {verb} {free:g}", remedy, passing, need, free
    )


def quota_obstacle(running: int, quota: int) -> Obstacle | None:
    """What keeps every node from taking a tenant's run: it runs as many as it may. ``quota`` 0 = no limit."""
    if not quota or running < quota:
        return None
    return Obstacle(
        "quota",
        f"your tenant runs {running} of {quota}",
        "wait for one of them to end, or ask an operator for a higher limit (running_runs)",
        True,
        1,
        0,
        quota,
    )


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


def as_json(obstacle: Obstacle) -> dict[str, Any]:
    """An obstacle in the contract's form of an explanation's reason."""
    return {
        "code": obstacle.code,
        "message": obstacle.message,
        "need": obstacle.need,
        "free": obstacle.free,
        "quota": obstacle.quota,
        "blocked_by": [],
        "remedy": obstacle.remedy,
    }
