"""Nodes, and what is reserved on them.

Must not import families.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from workers.admin.pages import ReadOnly
from workers.api.nodes import shapes
from workers.api.nodes.views import with_silence
from workers.models import Node


@admin.register(Node)
class NodeAdmin(ReadOnly):
    """Machines and what is reserved on them. Draining and removing: /api/v1/nodes."""

    list_display = (
        "name",
        "state",
        "cpus",
        "memory",
        "slots_used",
        "runtimes",
        "heartbeat_at",
        "troubled",
        "version",
    )
    ordering = ("name",)
    exclude = ("instance", "reserved_for")
    readonly_fields = ("state",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        found: QuerySet[Node] = with_silence(super().get_queryset(request))
        return found

    @admin.display(description="State", ordering="mode")
    def state(self, node: Any) -> str:
        """As /api/v1/nodes says it: a node that takes work but is silent takes none."""
        return str(shapes.node(node, node.silence.total_seconds(), settings.GANTRY_LEASE_S)["state"])

    @admin.display(description="Trouble")
    def troubled(self, node: Node) -> str:
        """As /api/v1/nodes says it: of the whole node, of some of its runtimes, what it could not remove."""
        return shapes.trouble(node)

    @admin.display(description="CPUs used")
    def cpus(self, node: Node) -> str:
        return f"{node.cpu_m_used / 1000:g} of {node.cpu_m_total / 1000:g}"

    @admin.display(description="MiB used")
    def memory(self, node: Node) -> str:
        return f"{node.mem_mb_used} of {node.mem_mb_total}"
