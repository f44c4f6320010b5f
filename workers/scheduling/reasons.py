"""Why does no node take this shape now? What the obstacles of all nodes together come to. Pure, no database.

Must not import models or anything of the project but obstacles.
"""

from __future__ import annotations

from collections.abc import Iterable

from workers.scheduling.obstacles import NODE_ATTRIBUTE, NodeView, Obstacle, ShapeView, obstacles


def reasons(shape: ShapeView, nodes: Iterable[NodeView], run_id: int | None = None) -> list[Obstacle]:
    """Why no node takes this shape now, the strongest reason first; empty = one could take it at once."""
    nodes = list(nodes)
    if not nodes:
        return [
            Obstacle(
                "no_node",
                "there is no node: no worker has reported, or an operator has removed it",
                "start a worker: make worker",
            )
        ]
    if meant := shape.constraints.get(NODE_ATTRIBUTE):
        # It was sent to this node: what the others lack is no reason.
        nodes = [node for node in nodes if node.name in meant] or nodes
    found = {node.name: obstacles(shape, node) for node in nodes}
    free = [node for node in nodes if not found[node.name]]
    if free:
        reserved = [node for node in free if node.reserved_for not in (None, run_id)]
        if len(reserved) == len(free):
            return [
                Obstacle(
                    "reserved",
                    f"node {reserved[0].name} is kept for a run that was passed over too long",
                    "wait: it goes on as soon as that run has started",
                    True,
                )
            ]
        return []
    hopeful = [items for items in found.values() if all(item.passing for item in items)]
    if hopeful:
        hopeful.sort(key=len)
        return _distinct(item for items in hopeful for item in items)
    return _hopeless(shape, found)


def _hopeless(shape: ShapeView, found: dict[str, list[Obstacle]]) -> list[Obstacle]:
    """No node could ever take it as things stand: say what is missing everywhere."""
    for name, values in sorted(shape.constraints.items()):
        if all(
            any(item.code == "constraint" and f" has {name} " in item.message for item in items)
            for items in found.values()
        ):
            if name == NODE_ATTRIBUTE:
                gone = f"it is meant for node {' or '.join(values)}, which is not there"
                return [Obstacle("constraint", gone, "start the worker of that node, or cancel it")]
            return [
                Obstacle(
                    "constraint",
                    f"no node has {name} in [{', '.join(values)}]",
                    f"start a worker with {name}={values[0]}, or submit it again without this constraint",
                )
            ]
    if all(any(item.code == "runtime" for item in items) for items in found.values()):
        remedy = (
            "start a worker on a machine where a Docker Engine answers"
            if shape.kind == "container"
            else f"start a worker that offers the {shape.kind} runtime"
        )
        return [Obstacle("runtime", f"no node offers the {shape.kind} runtime", remedy)]
    for code, what in (("cpu_total", "CPU"), ("mem_total", "MiB of memory")):
        lacking = [item for items in found.values() for item in items if item.code == code]
        if len(lacking) == len(found):
            most = max(item.free or 0 for item in lacking)
            return [
                Obstacle(
                    code,
                    f"it needs {lacking[0].need:g} {what}, the largest node has {most:g}",
                    "ask for less, or start a larger node",
                    False,
                    lacking[0].need,
                    most,
                )
            ]
    return _distinct(item for items in sorted(found.values(), key=len) for item in items)


def _distinct(items: Iterable[Obstacle]) -> list[Obstacle]:
    return list({item.message: item for item in items}.values())[:20]
