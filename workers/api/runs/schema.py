"""What the OpenAPI document says about /api/v1/runs. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from workers.api.runs import serializers as s
from workers.api.schema import ALL, CALLBACK_HEADER, KEY, PAGE, operation, shown
from workers.api.serializers import ErrorSerializer
from workers.vocabulary.states import State

_RUN_ID: Final = OpenApiParameter("run_id", OpenApiTypes.INT64, OpenApiParameter.PATH)


#: What each status means here; the statuses that every operation may answer are added by config.http.openapi.
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
    "log_pruned": False,
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
            "log_pruned": False,
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
            "note": "",
        }
    ],
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
    {200: s.RunDetailSerializer, 404: ErrorSerializer},
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
        (416, "text/plain"): OpenApiTypes.STR,
        (200, "text/event-stream"): OpenApiTypes.STR,
        404: ErrorSerializer,
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
    {200: s.CancelledSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
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
    {201: s.RunSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[*_RUN, KEY, CALLBACK_HEADER],
    examples=[shown("the new run", RUN_EXAMPLE, "201")],
)


EXPLAIN: Final = operation(
    "runs_explain",
    "runs",
    "Why is a run where it is?",
    {200: s.ExplanationSerializer, 404: ErrorSerializer},
    parameters=_RUN,
    examples=[shown("a waiting run", EXPLANATION_EXAMPLE)],
)
