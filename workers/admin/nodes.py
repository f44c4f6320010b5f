"""Nodes, and what is reserved on them.

Must not import families.
"""

from __future__ import annotations

from django.contrib import admin

from workers.admin.pages import ReadOnly
from workers.models import Node


@admin.register(Node)
class NodeAdmin(ReadOnly):
    """Machines and what is reserved on them. Draining and removing: /api/v1/nodes."""

    list_display = (
        "name",
        "mode",
        "cpus",
        "memory",
        "slots_used",
        "runtimes",
        "heartbeat_at",
        "trouble",
        "version",
    )
    ordering = ("name",)
    exclude = ("instance", "reserved_for")

    @admin.display(description="CPUs used")
    def cpus(self, node: Node) -> str:
        return f"{node.cpu_m_used / 1000:g} of {node.cpu_m_total / 1000:g}"

    @admin.display(description="MiB used")
    def memory(self, node: Node) -> str:
        return f"{node.mem_mb_used} of {node.mem_mb_total}"
