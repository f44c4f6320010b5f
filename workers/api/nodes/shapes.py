"""How /api/v1 shows nodes: a pure function from a row to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import Node
from workers.models.nodes import LEFTOVERS


def node(row: Node, silence_s: float, lease_s: float) -> dict[str, Any]:
    """A node. ``silence_s`` since its heartbeat, by the database's clock; beyond a lease it is silent."""
    if row.mode == Node.Mode.REMOVED:
        state = "removed"
    elif silence_s > lease_s or row.detached:
        state = "silent"
    else:
        state = row.mode
    return {
        "name": row.name,
        "swarm_node_id": row.swarm_node_id or None,
        "state": state,
        "attributes": row.attributes,
        "runtimes": row.runtimes,
        "cpus": row.cpu_m_total / 1000,
        "cpus_free": (row.cpu_m_total - row.cpu_m_used) / 1000,
        "mem_mb": row.mem_mb_total,
        "mem_mb_free": row.mem_mb_total - row.mem_mb_used,
        "running": row.slots_used,
        "heartbeat_at": stamp(row.heartbeat_at),
        "version": row.version,
        "draining": row.mode == Node.Mode.DRAINING,
        "trouble": trouble(row) or None,
    }


def trouble(row: Node) -> str:
    """Why it takes no work, or none of some kinds, and what it could not remove; empty when all is well."""
    kinds = [words for kind, words in row.troubles.items() if kind != LEFTOVERS]
    said = [row.trouble] if row.trouble else list(dict.fromkeys(kinds))  # runtimes of one engine say the same
    return "; ".join([*said, *filter(None, [row.troubles.get(LEFTOVERS)])])
