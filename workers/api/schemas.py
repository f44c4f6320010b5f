"""What the OpenAPI document says about each route of /api/v1, with examples: arguments of ``extend_schema``.

Must not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from workers.api import serializers as s
from workers.vocabulary.states import State

TENANT_HEADER: Final = OpenApiParameter(
    "X-Tenant-Id",
    str,
    OpenApiParameter.HEADER,
    description="The tenant that the request acts for; without it the user's default tenant.",
)
KEY: Final = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body within 24 hours create one thing and get one answer.",
)
CALLBACK_HEADER: Final = OpenApiParameter(
    "X-Callback-Url",
    str,
    OpenApiParameter.HEADER,
    description="http or https; told when an attempt starts and when it ends (docs/callbacks.md).",
)
ALL: Final = OpenApiParameter(
    "all_tenants", bool, description="1: every tenant's runs; needs the scope operate."
)
_RUN_ID: Final = OpenApiParameter("run_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_NODE: Final = OpenApiParameter("name", str, OpenApiParameter.PATH, description="The node's name.")
PAGE: Final = [
    OpenApiParameter(
        "limit", int, description="1 to 1000, 100 without. A Link header with rel=next leads on."
    ),
    OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
]

#: What each status means here; the statuses that every operation may answer are added by config.openapi.
_NOT_FOUND: Final = OpenApiExample(
    "not found",
    value={"error": {"code": "not_found", "message": "there is no run 17"}},
    response_only=True,
    status_codes=["404"],
)

RUN_EXAMPLE: Final[dict[str, Any]] = {
    "id": 17,
    "family": "tasks",
    "kind": "process",
    "name": "demo-commands",
    "tenant": "default",
    "owner": {"id": "17", "url": "http://localhost:8000/v1/tasks/17"},
    "state": "SUCCEEDED",
    "reason": "",
    "message": "Command exited with status 0",
    "priority": 5,
    "node": "node-a",
    "attempt": 1,
    "exit_code": 0,
    "created_at": "2026-11-22T10:00:00.000000Z",
    "started_at": "2026-11-22T10:00:00.012000Z",
    "finished_at": "2026-11-22T10:00:01.020000Z",
    "cancel_requested_at": None,
    "url": "http://localhost:8000/api/v1/runs/17",
}
DETAIL_EXAMPLE: Final[dict[str, Any]] = {
    **RUN_EXAMPLE,
    "attempts": [
        {
            "number": 1,
            "node": "node-a",
            "state": "SUCCEEDED",
            "reason": "",
            "message": "Command exited with status 0",
            "exit_code": 0,
            "started_at": "2026-11-22T10:00:00.012000Z",
            "finished_at": "2026-11-22T10:00:01.020000Z",
            "log_bytes": 12,
            "log_truncated": False,
            "image_digest": None,
        }
    ],
    "events": [
        {
            "at": "2026-11-22T10:00:00.000000Z",
            "from": "",
            "to": "PENDING",
            "reason": "",
            "attempt": 0,
            "by": "client",
        }
    ],
}
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
EXPLANATION_EXAMPLE: Final[dict[str, Any]] = {
    "state": "PENDING",
    "since": "2026-11-22T10:00:00.000000Z",
    "reasons": [
        {
            "code": "constraint",
            "message": "no node has rack_id in [r9]",
            "need": None,
            "free": None,
            "quota": None,
            "blocked_by": [],
            "remedy": "start a worker with rack_id=r9, or cancel it and submit it without this constraint",
        }
    ],
    "position": 0,
    "estimate": None,
}


def shown(name: str, value: object, status: str = "200") -> OpenApiExample:
    return OpenApiExample(name, value=value, response_only=True, status_codes=[status])


def asked(name: str, value: object) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


def operation(
    name: str,
    tag: str,
    summary: str,
    responses: dict[Any, Any],
    *,
    parameters: list[Any] | None = None,
    request: Any = None,
    examples: list[OpenApiExample] | None = None,
) -> dict[str, Any]:
    return {
        "operation_id": name,
        "tags": [tag],
        "summary": summary,
        "parameters": [TENANT_HEADER, *(parameters or [])],
        "request": request,
        "responses": responses,
        "examples": examples or [],
    }


RUNS: Final = operation(
    "runs_list",
    "runs",
    "List runs, the newest first",
    {200: s.RunSerializer(many=True)},
    parameters=[
        OpenApiParameter("family", str),
        OpenApiParameter("state", str, enum=list(State.values)),
        OpenApiParameter("kind", str),
        OpenApiParameter("node", str, description="The node's name."),
        OpenApiParameter("owner", str, description="The family's own id of what the run belongs to."),
        OpenApiParameter("created_after", OpenApiTypes.DATETIME, description="This moment included."),
        OpenApiParameter("created_before", OpenApiTypes.DATETIME, description="This moment not included."),
        OpenApiParameter("name", str, description="The whole name."),
        *PAGE,
        ALL,
    ],
    examples=[shown("a run", RUN_EXAMPLE)],
)
_RUN: Final = [_RUN_ID, ALL]
RUN: Final = operation(
    "runs_retrieve",
    "runs",
    "One run with its attempts and events",
    {200: s.RunDetailSerializer, 404: s.ErrorSerializer},
    parameters=_RUN,
    examples=[shown("a run", DETAIL_EXAMPLE), _NOT_FOUND],
)
LOGS: Final = operation(
    "runs_logs",
    "runs",
    "A run's output: whole, a range, or as it comes",
    {
        (200, "text/plain"): OpenApiTypes.STR,
        (206, "text/plain"): OpenApiTypes.STR,
        (200, "text/event-stream"): OpenApiTypes.STR,
        404: s.ErrorSerializer,
    },
    parameters=[
        *_RUN,
        OpenApiParameter("stream", str, enum=["stdout", "stderr"], description="One stream only."),
        OpenApiParameter("attempt", int, description="An attempt's number; without it the latest."),
        OpenApiParameter("offset", int, description="From this byte of the stream on."),
        OpenApiParameter(
            "wait", float, description="With offset: wait so many seconds for output (long poll)."
        ),
        OpenApiParameter("follow", bool, description="1: server-sent events until the run has ended."),
        OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="bytes=0-99, of one stream."),
    ],
)
CANCEL: Final = operation(
    "runs_cancel",
    "runs",
    "Cancel a run",
    {200: s.CancelledSerializer, 404: s.ErrorSerializer, 409: s.ErrorSerializer},
    parameters=_RUN,
    examples=[
        shown(
            "a waiting run",
            {
                "id": 17,
                "state": "CANCELLED",
                "accepted": True,
                "already_final": False,
                "message": "Cancelled before it started",
            },
        )
    ],
)
RETRY: Final = operation(
    "runs_retry",
    "runs",
    "Run an ended run once more, as a new run",
    {201: s.RunSerializer, 404: s.ErrorSerializer, 409: s.ErrorSerializer},
    parameters=[*_RUN, KEY, CALLBACK_HEADER],
    examples=[shown("the new run", RUN_EXAMPLE, "201")],
)
EXPLAIN: Final = operation(
    "runs_explain",
    "runs",
    "Why is a run where it is?",
    {200: s.ExplanationSerializer, 404: s.ErrorSerializer},
    parameters=_RUN,
    examples=[shown("a waiting run", EXPLANATION_EXAMPLE)],
)

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
    {200: s.NodeSerializer, 404: s.ErrorSerializer},
    parameters=[_NODE],
    examples=[shown("a node", NODE_EXAMPLE)],
)
NODE_REMOVE: Final = operation(
    "nodes_remove",
    "nodes",
    "Take a node out for good; its worker stops what runs there",
    {200: s.NodeSerializer, 404: s.ErrorSerializer},
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
    {200: s.NodeSerializer, 404: s.ErrorSerializer, 409: s.ErrorSerializer},
    parameters=[_NODE],
    examples=[shown("draining", {**NODE_EXAMPLE, "state": "draining", "draining": True})],
)
NODE_UNDRAIN: Final = operation(
    "nodes_undrain",
    "nodes",
    "Let a drained node take work again",
    {200: s.NodeSerializer, 404: s.ErrorSerializer, 409: s.ErrorSerializer},
    parameters=[_NODE, OpenApiParameter("force", bool, description="1: also a node that was removed.")],
    examples=[shown("ready", NODE_EXAMPLE)],
)
