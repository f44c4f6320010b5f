"""/api/v1/nodes: what each node has and does; operators drain and remove them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers import services
from workers.api.answers import ApiView, Page, answer, flag, known_parameters
from workers.api.nodes import schema, shapes
from workers.models import Node
from workers.vocabulary.errors import NotFound


def with_silence(nodes: Any) -> Any:
    """Nodes with ``silence``: the time since their heartbeat by the database's clock."""
    return nodes.annotate(silence=ExpressionWrapper(Now() - F("heartbeat_at"), output_field=DurationField()))


def _nodes() -> Any:
    return with_silence(Node.objects)


def _render(node: Any) -> dict[str, Any]:
    return shapes.node(node, node.silence.total_seconds(), settings.GANTRY_LEASE_S)


def _one(name: str) -> dict[str, Any]:
    node = _nodes().filter(name=name).first()
    if node is None:
        raise NotFound(f"there is no node {name}")
    return _render(node)


class NodesView(ApiView):
    """/api/v1/nodes"""

    @extend_schema(**schema.NODES)
    def get(self, request: Request) -> HttpResponse:
        """All nodes by name."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        nodes = _nodes().order_by("name")
        if page.cursor:
            nodes = nodes.filter(name__gt=page.cursor)
        return page.answer(request, list(nodes[: page.limit + 1]), _render, lambda node: node.name)


class NodeView(ApiView):
    """/api/v1/nodes/{name}"""

    scopes: ClassVar[dict[str, str]] = {"GET": "read", "DELETE": "operate"}

    @extend_schema(**schema.NODE)
    def get(self, request: Request, name: str) -> HttpResponse:
        """One node."""
        return answer(_one(name))

    @extend_schema(**schema.NODE_REMOVE)
    def delete(self, request: Request, name: str) -> HttpResponse:
        """Take a node out for good."""
        services.remove_node(name, force=flag(request, "force"))
        return answer(_one(name))


class NodeDrainView(ApiView):
    """/api/v1/nodes/{name}/drain"""

    required_scope = "operate"

    @extend_schema(**schema.NODE_DRAIN)
    def post(self, request: Request, name: str) -> HttpResponse:
        """Let a node finish what it has and take nothing new."""
        services.set_node_mode(name, Node.Mode.DRAINING)
        return answer(_one(name))


class NodeUndrainView(ApiView):
    """/api/v1/nodes/{name}/undrain"""

    required_scope = "operate"

    @extend_schema(**schema.NODE_UNDRAIN)
    def post(self, request: Request, name: str) -> HttpResponse:
        """Let a drained node take work again."""
        services.set_node_mode(name, Node.Mode.READY, force=flag(request, "force"))
        return answer(_one(name))
