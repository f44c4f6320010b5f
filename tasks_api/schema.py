"""What the OpenAPI schema says about each route of the tasks family, with the seed's own examples.

Keyword arguments of drf-spectacular's ``extend_schema``, one dictionary per method of ``tasks_api.views``.
Must not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from tasks_api import serializers as shapes
from workers.api.runs.schema import EXPLANATION_EXAMPLE
from workers.api.schema import CALLBACK_HEADER, KEY, TENANT_HEADER

TAGS: Final = ["tasks"]

_ID: Final = OpenApiParameter("task_id", OpenApiTypes.INT64, OpenApiParameter.PATH, description="taskId")
_TASK_ID: Final = OpenApiParameter(
    "taskId", OpenApiTypes.INT64, required=True, description="May stand in a form or JSON body instead."
)
_TASK_IDS: Final = OpenApiParameter(
    "taskIds",
    str,
    required=True,
    description="Ids separated by commas, at most 1000. A POST may carry them in its body instead.",
    examples=[OpenApiExample("two tasks", value="806769905152840693,806769905152840695")],
)

_FAILED: Final = OpenApiExample(
    "response failed",
    value={"status": -2127552257, "message": "object not null error"},
    response_only=True,
    status_codes=["400"],
)


def _errors(*statuses: int) -> dict[int, type[shapes.TaskErrorSerializer]]:
    """Errors of a route of its own; those that every route may answer are added by config.http.openapi."""
    return dict.fromkeys(statuses, shapes.TaskErrorSerializer)


def _ok(name: str, data: object) -> OpenApiExample:
    return OpenApiExample(
        name, value={"status": 0, "message": "OK", "data": data}, response_only=True, status_codes=["200"]
    )


CONTAINER_EXAMPLE: Final[dict[str, Any]] = {
    "callbackUrl": "http://www.XXXXXXXX.com/v5/tasks/callback",
    "taskName": "demo-container",
    "env": {"name": "environment", "value": "dev"},
    "args": ["this is a test"],
    "container": {"docker": {"image": "dockerhub.XXXX.com/demo-slice"}, "type": "DOCKER"},
}
COMMANDS_EXAMPLE: Final[dict[str, Any]] = {
    "callbackUrl": "http://www.XXXXXXXX.com/v5/tasks/callback",
    "taskName": "demo-commands",
    "env": {"name": "environment", "value": "dev"},
    "commands": "/home/app/entrypoint.sh",
}
TASK_EXAMPLE: Final[dict[str, Any]] = {
    "taskId": 806769905152840693,
    "taskName": "test-docker",
    "tenantId": "10002",
    "dockerImage": "dockerhub.XXXX.com/juice-test",
    "taskStatus": 2,
    "message": "Container exited with status 0",
    "callbackAt": "Dec 8, 2016 4:03:08 PM",
    "callbackUrl": "http://localhost:9999/v1/callback",
    "submitAt": "Dec 8, 2016 3:58:29 PM",
    "finishAt": "Dec 8, 2016 4:03:08 PM",
    "agentHost": "node-a",
    "retry": 0,
}
COMMANDS_TASK_EXAMPLE: Final[dict[str, Any]] = {
    "taskId": 806769905152840695,
    "taskName": "test-commands",
    "tenantId": "10002",
    "commands": "/home/app/entrypoint.sh",
    "taskStatus": 3,
    "message": "Command exited with status 3",
    "callbackAt": "Dec 8, 2016 4:04:08 PM",
    "callbackUrl": "http://localhost:9999/v1/callback",
    "submitAt": "Dec 8, 2016 3:54:29 PM",
    "finishAt": "Dec 8, 2016 4:04:08 PM",
    "agentHost": "node-a",
    "retry": 0,
}
KILL_EXAMPLE: Final[dict[str, Any]] = {
    "submitKill": True,
    "submitTask": True,
    "resultMessage": "task is killed",
    "currentStatus": 6,
}

SUBMIT: Final[dict[str, Any]] = {
    "operation_id": "tasks_submit",
    "summary": "Submit a task",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, KEY, CALLBACK_HEADER],
    "request": shapes.TaskSubmissionSerializer,
    "responses": {200: shapes.TASK_ID_ANSWER, **_errors(400, 409, 413, 415)},
    "examples": [
        OpenApiExample("run container", value=CONTAINER_EXAMPLE, request_only=True),
        OpenApiExample("run commands", value=COMMANDS_EXAMPLE, request_only=True),
        _ok("response ok", {"taskId": 806769905152840693}),
        _FAILED,
    ],
}
QUERY: Final[dict[str, Any]] = {
    "operation_id": "tasks_query",
    "summary": "Query tasks",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _TASK_IDS],
    "responses": {200: shapes.TASKS_ANSWER, **_errors(400)},
    "examples": [_ok("response ok", [TASK_EXAMPLE, COMMANDS_TASK_EXAMPLE]), _FAILED],
}
KILL: Final[dict[str, Any]] = {
    "operation_id": "tasks_kill",
    "summary": "Kill a task",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _TASK_ID],
    "request": None,
    "responses": {200: shapes.KILL_ANSWER, **_errors(400, 413, 415)},
    "examples": [_ok("response ok", KILL_EXAMPLE), _FAILED],
}
RECONCILE: Final[dict[str, Any]] = {
    "operation_id": "tasks_reconcile",
    "summary": "Reconcile tasks",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _TASK_IDS],
    "request": None,
    "responses": {200: shapes.RECONCILE_ANSWER, **_errors(400, 413, 415)},
    "examples": [
        _ok(
            "response ok",
            {
                "request": 2,
                "reconcile": 1,
                "reconciles": [
                    {"taskId": 806769905152840693, "reconciled": True, "message": "it runs"},
                    {"taskId": 1, "reconciled": False, "message": "invalid taskId"},
                ],
            },
        ),
        _FAILED,
    ],
}
RETRIEVE: Final[dict[str, Any]] = {
    "operation_id": "tasks_retrieve",
    "summary": "One task",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _ID],
    "responses": {200: shapes.TASK_ANSWER, **_errors(404)},
    "examples": [_ok("response ok", TASK_EXAMPLE)],
}
LOGS: Final[dict[str, Any]] = {
    "operation_id": "tasks_logs",
    "summary": "A task's output",
    "tags": TAGS,
    "parameters": [
        TENANT_HEADER,
        _ID,
        OpenApiParameter("stream", str, enum=["stdout", "stderr"], description="One stream only."),
        OpenApiParameter("attempt", int, description="From 1 on, or from the last one back: -1. Default -1."),
        OpenApiParameter("tail", int, description="The last bytes of each stream only."),
        OpenApiParameter("offset", int, description="From this byte of one stream on."),
        OpenApiParameter("wait", float, description="With offset: wait up to so many seconds for output."),
        OpenApiParameter("follow", str, enum=["0", "1"], description="1: go on until the task has ended."),
        OpenApiParameter(
            "expires", int, description="Part of a signed URL: when it ends, seconds since 1970."
        ),
        OpenApiParameter("signature", str, description="Part of a signed URL, in place of a token."),
        OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="bytes=0-99, of one stream."),
    ],
    "responses": {
        (200, "text/plain"): OpenApiTypes.STR,
        (206, "text/plain"): OpenApiTypes.STR,
        (416, "text/plain"): OpenApiTypes.STR,
        **_errors(400, 404),
    },
}
EXPLAIN: Final[dict[str, Any]] = {
    "operation_id": "tasks_explain",
    "summary": "Why a task is where it is",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _ID],
    "responses": {200: shapes.EXPLANATION_ANSWER, **_errors(404)},
    "examples": [_ok("response ok", EXPLANATION_EXAMPLE)],
}
