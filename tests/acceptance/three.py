"""Three nodes with different rack_id and data folders of their own."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from tests.support.cluster import Cluster, Process
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt

RACKS = {"n1": "r1", "n2": "r2", "n3": "r3"}


def three_nodes(cluster: Cluster, *, cpus: float = 4, mem_mb: int = 2048) -> dict[str, Process]:
    """n1, n2, n3 in r1, r2, r3; each says that its host has a name of its own."""
    nodes = {
        name: cluster.node(
            name, cpus=cpus, mem_mb=mem_mb, attributes=f"rack_id={rack},hostname=host-{name}", wait=False
        )
        for name, rack in RACKS.items()
    }
    for node in nodes.values():
        wait_until(partial(_settled, node), 90, why=f"{node.name} takes work")
        assert node.alive, node.text()[-3000:]
    return nodes


def _settled(node: Process) -> bool:
    return not node.alive or "broker.back" in node.text()


def node_of(run_id: int, attempt: int = 1) -> str:
    return Attempt.objects.get(run_id=run_id, number=attempt).node.name


def claimed_at(run_id: int) -> datetime:
    return Attempt.objects.filter(run_id=run_id).latest("number").claimed_at


def reasons(tenant_id: int, run_id: int) -> list[str]:
    found = services.explain(tenant_id, run_id)["reasons"]
    assert isinstance(found, list)
    return [item["message"] for item in found if item["code"] != "broker"]
