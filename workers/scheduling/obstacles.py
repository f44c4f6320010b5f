"""May this node take this shape now, and what keeps it from it? Pure functions, no database.

Claiming decides with them and explain tells with them: one definition of "may take". Must not import models
or anything of the project but words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: The attribute that every node has and no other node shares: its name.
NODE_ATTRIBUTE: Final = "node"
#: Attributes that say "yes" where a node speaks a protocol of sites ("storage_sftp"; else what it lacks), and
#: where it offers a folder of its own as a site ("local:/data").
STORAGE_ATTRIBUTE: Final = "storage_"
LOCAL_ATTRIBUTE: Final = "local:"
#: How a node separates commands: namespaces (then it ``isolates_users``), uids or none.
ISOLATION_ATTRIBUTE: Final = "isolation"
UIDS: Final = "uids"


@dataclass(frozen=True)
class ShapeView:
    """What a run asks of a node; immutable like the row it was read from."""

    id: int
    tenant_id: int
    kind: str
    cpu_m: int
    mem_mb: int
    constraints: Mapping[str, Sequence[str]]
    #: May its commands run as the worker's own user?
    trusted: bool
    #: Fixed ports of the host, "8080/tcp".
    host_ports: frozenset[str] = frozenset()
    #: May its commands run where they are separated by their users only? Policy commands_unisolated.
    unisolated: bool = False


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
        if node.attributes.get(name) in values:
            continue
        if (plain := _unoffered(name, node)) is not None:
            found.append(plain)
        else:
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
    elif shape.kind == "process" and (shared := _not_isolated(shape, node)) is not None:
        found.append(shared)
    if shape.cpu_m > node.cpu_m:
        found.append(_lacks("cpu_total", node, "CPU", shape.cpu_m / 1000, node.cpu_m / 1000, "has", False))
    if shape.mem_mb > node.mem_mb:
        found.append(_lacks("mem_total", node, "MiB of memory", shape.mem_mb, node.mem_mb, "has", False))
    return found


def _not_isolated(shape: ShapeView, node: NodeView) -> Obstacle | None:
    """Why this tenant's commands may not run beside those of others there (decision 91)."""
    if node.isolates_users or shape.trusted:
        return None
    if node.attributes.get(ISOLATION_ATTRIBUTE) != UIDS:
        return Obstacle(
            "not_isolated",
            f"node {node.name} runs commands as its own user, which this tenant may not use",
            "run the worker as root, so that each command gets a user of its own",
        )
    if shape.unisolated:
        return None
    return Obstacle(
        "not_isolated",
        f"node {node.name} separates commands by user only: others see their command lines and /tmp",
        "give the worker SYS_ADMIN, so that commands get namespaces (compose: deploy/compose-isolation.yml), "
        "or let an operator open the policy commands_unisolated for this tenant",
    )


def _unoffered(name: str, node: NodeView) -> Obstacle | None:
    """What a node lacks for transfers, in words of its own."""
    if name.startswith(STORAGE_ATTRIBUTE):
        protocol = name.removeprefix(STORAGE_ATTRIBUTE).upper()
        lack = node.attributes.get(name, "its worker does not know that protocol")
        return Obstacle(
            "constraint", f"node {node.name} cannot speak {protocol}: {lack}", "install that, or add a node"
        )
    if name.startswith(LOCAL_ATTRIBUTE):
        folder = name.removeprefix(LOCAL_ATTRIBUTE)
        return Obstacle(
            "constraint",
            f"node {node.name} does not offer the folder {folder}",
            f"start a node there with GANTRY_LOCAL_SITES={folder}",
        )
    return None


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
