"""What the OpenAPI schema says about each route of the family, with the seed's own examples.

Keyword arguments of drf-spectacular's ``extend_schema``, one dictionary per method of ``views``. Must
not import views, services or models.
"""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiExample, OpenApiParameter

from queues.entries import serializers as shapes
from workers.api.schema import KEY, TENANT_HEADER

TAGS: Final = ["queues"]

_TYPE: Final = OpenApiParameter(
    "type", str, OpenApiParameter.PATH, pattern=shapes.NAME, description="vm, kube, or any word of yours"
)
_REQUEST: Final = OpenApiParameter(
    "request_id", str, OpenApiParameter.PATH, pattern=shapes.NAME, description="As its client named it"
)
_IDS: Final = [TENANT_HEADER, _TYPE, _REQUEST]

#: The seed's request and entries.
BODY_EXAMPLE: Final[dict[str, Any]] = {
    "request_id": "d",
    "owner_id": "y",
    "data": {"instances": [{"VCPU": 1, "Memory": 1, "Disk": 1}], "project": "project id"},
    "callback": "abc",
}
_ADMITTED_DATA: Final = (
    '{"host_aggregate":"host1","instances":[{"Disk":1,"Memory":1,"VCPU":1}],"project":"project id"}'
)
_UNDELIVERABLE: Final = "the callback is no http or https URL: ask for the status instead"
RUNNING_EXAMPLE: Final[dict[str, Any]] = {
    "ID": 7,
    "CreatedAt": "2018-08-27T03:27:08.564319Z",
    "UpdatedAt": "2018-08-27T03:30:02.250197Z",
    "DeletedAt": None,
    "RequestID": "d",
    "Type": "vm",
    "OwnerID": "y",
    "Data": _ADMITTED_DATA,
    "Callback": "abc",
    "Priority": 2756167942488154,
    "Status": "running",
    "CallbackState": "undeliverable",
    "CallbackError": _UNDELIVERABLE,
}
QUEUED_EXAMPLE: Final[dict[str, Any]] = {
    **RUNNING_EXAMPLE,
    "ID": 8,
    "CreatedAt": "2018-08-29T06:49:03.288817Z",
    "UpdatedAt": "2018-08-29T06:49:03.288817Z",
    "Data": '{"instances":[{"Disk":1,"Memory":1,"VCPU":1}],"project":"project id"}',
    "Priority": 2941082666988554,
    "Status": "queued",
}
_REMEDY: Final = "an operator adds a host with 1 Disk, 1 Memory, 1 VCPU in an aggregate of its own"
EXPLANATION_EXAMPLE: Final[dict[str, Any]] = {
    "state": "queued",
    "since": "2018-08-29T06:49:03.288817Z",
    "reasons": [
        {
            "level": "misconfigured",
            "code": "no_pools",
            "message": "no capacity is declared for this type: an operator has to declare a pool",
            "need": None,
            "free": None,
            "quota": None,
            "blocked_by": [],
            "remedy": _REMEDY,
            "conditions": [],
            "suggestions": [
                {
                    "action": "host",
                    "aggregate": "new",
                    "amounts": {"Disk": 1, "Memory": 1, "VCPU": 1},
                    "text": _REMEDY,
                }
            ],
        }
    ],
    "position": 1,
    "estimate": {"unknown": "because nothing that there is could ever hold it"},
    "approximate": False,
    "ahead": {"own": [], "own_count": 0, "more": False, "others_waiting": 0},
    "reserved": None,
    "bound": None,
    "running": {"own": [], "others": {}},
}


def _errors(*statuses: int) -> dict[int, type[shapes.QueueErrorSerializer]]:
    """Errors of a route of its own; those that every route may answer are added by config.http.openapi."""
    return dict.fromkeys(statuses, shapes.QueueErrorSerializer)


def _ok(data: object) -> OpenApiExample:
    value = {"data": data, "ok": True}
    return OpenApiExample("ok", value=value, response_only=True, status_codes=["200"])


def _error(status: int, error_id: str, message: str) -> OpenApiExample:
    value = {"ok": False, "error": {"id": error_id, "message": message}}
    return OpenApiExample(error_id, value=value, response_only=True, status_codes=[str(status)])


def _sent(name: str, value: object) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


_UNKNOWN: Final = _error(404, "request_id_not_found", "there is no request d in this queue")
_ENDED: Final = _error(409, "conflict", "request d is finished already")

LIST: Final[dict[str, Any]] = {
    "operation_id": "queues_list",
    "summary": "A queue: what runs, then what waits, in its order",
    "tags": TAGS,
    "parameters": [
        TENANT_HEADER,
        _TYPE,
        OpenApiParameter("owner_id", str, description="Of this owner only; empty: of all."),
        OpenApiParameter(
            "status", str, description="Of this status only; queue is queued. Ended ones are listed only so."
        ),
        OpenApiParameter("limit", int, description="1 to 1000; without it everything is answered."),
        OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
    ],
    "responses": {200: shapes.ENTRIES_ANSWER, **_errors(400, 404)},
    "examples": [_ok([RUNNING_EXAMPLE])],
}
CREATE: Final[dict[str, Any]] = {
    "operation_id": "queues_create",
    "summary": "Request resources",
    "tags": TAGS,
    "parameters": [TENANT_HEADER, _TYPE, KEY],
    "request": shapes.QueueSubmissionSerializer,
    "responses": {200: shapes.ENTRY_ANSWER, **_errors(400, 409, 413, 415)},
    "examples": [
        _sent("vm", BODY_EXAMPLE),
        _ok(QUEUED_EXAMPLE),
        _error(
            409,
            "request_id_duplicated",
            "request_id d is taken: that request is running; use a new id",
        ),
    ],
}
RETRIEVE: Final[dict[str, Any]] = {
    "operation_id": "queues_retrieve",
    "summary": "One request, also one that has ended",
    "tags": TAGS,
    "parameters": _IDS,
    "responses": {200: shapes.ENTRY_ANSWER, **_errors(404)},
    "examples": [_ok(RUNNING_EXAMPLE), _UNKNOWN],
}
MOVE: Final[dict[str, Any]] = {
    "operation_id": "queues_move",
    "summary": "Move a queued request",
    "tags": TAGS,
    "parameters": _IDS,
    "request": shapes.QueueMoveSerializer,
    "responses": {200: shapes.NOTHING_ANSWER, **_errors(400, 404, 409, 413, 415)},
    "examples": [
        _sent("by number", {"priority": 83334}),
        _sent("beside another one (ours)", {"before": "c"}),
        _ok({}),
        _UNKNOWN,
        _error(409, "conflict", "request d is running: only queued ones have a place to move"),
    ],
}
END: Final[dict[str, Any]] = {
    "operation_id": "queues_end",
    "summary": "Withdraw a queued request, or end a running one and give its capacity back",
    "tags": TAGS,
    "parameters": _IDS,
    "responses": {200: shapes.NOTHING_ANSWER, **_errors(404, 409)},
    "examples": [_ok({}), _UNKNOWN, _ENDED],
}
CONFIRM: Final[dict[str, Any]] = {
    "operation_id": "queues_confirm",
    "summary": "Say that a running request has what it was admitted for",
    "tags": TAGS,
    "parameters": _IDS,
    "request": None,
    "responses": {200: shapes.NOTHING_ANSWER, **_errors(400, 404, 409)},
    "examples": [_ok({}), _UNKNOWN, _ENDED],
}
EXPLAIN: Final[dict[str, Any]] = {
    "operation_id": "queues_explain",
    "summary": "Why a request is where it is",
    "tags": TAGS,
    "parameters": _IDS,
    "responses": {200: shapes.EXPLANATION_ANSWER, **_errors(404)},
    "examples": [_ok(EXPLANATION_EXAMPLE), _UNKNOWN],
}
