"""What the OpenAPI document says about /api/v1/nodes. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter

from workers.api.nodes import serializers as s
from workers.api.schema import PAGE, operation, shown
from workers.api.serializers import ErrorSerializer

_NODE: Final = OpenApiParameter("name", str, OpenApiParameter.PATH, description="The node's name.")


NODE_EXAMPLE: Final[dict[str, Any]] = {
    "name": "node-a",
    "swarm_node_id": None,
    "state": "ready",
    "attributes": {"hostname": "node-a", "rack_id": "r1"},
    "runtimes": ["process"],
    "cpus": 4.0,
    "cpus_free": 3.0,
    "mem_mb": 8192,
    "mem_mb_free": 7680,
    "running": 1,
    "heartbeat_at": "2026-11-22T10:00:00.000000Z",
    "version": "0.1.0",
    "draining": False,
    "trouble": None,
}


NODES: Final = operation(
    "nodes_list",
    "nodes",
    "List nodes",
    {200: s.NodeSerializer(many=True)},
    parameters=PAGE,
    examples=[shown("a node", NODE_EXAMPLE)],
)


NODE: Final = operation(
    "nodes_retrieve",
    "nodes",
    "One node",
    {200: s.NodeSerializer, 404: ErrorSerializer},
    parameters=[_NODE],
    examples=[shown("a node", NODE_EXAMPLE)],
)


NODE_REMOVE: Final = operation(
    "nodes_remove",
    "nodes",
    "Take a node out for good; its worker stops what runs there",
    {200: s.NodeSerializer, 404: ErrorSerializer},
    parameters=[
        _NODE,
        OpenApiParameter(
            "force", bool, description="1: nothing runs there any more; close its runs at once."
        ),
    ],
    examples=[shown("removed", {**NODE_EXAMPLE, "state": "removed"})],
)


NODE_DRAIN: Final = operation(
    "nodes_drain",
    "nodes",
    "Let a node finish what it has and take nothing new",
    {200: s.NodeSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[_NODE],
    examples=[shown("draining", {**NODE_EXAMPLE, "state": "draining", "draining": True})],
)


NODE_UNDRAIN: Final = operation(
    "nodes_undrain",
    "nodes",
    "Let a drained node take work again",
    {200: s.NodeSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[_NODE, OpenApiParameter("force", bool, description="1: also a node that was removed.")],
    examples=[shown("ready", NODE_EXAMPLE)],
)
