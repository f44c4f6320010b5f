"""What the OpenAPI document says about /api/v1/callbacks. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from workers.api.callbacks import serializers as s
from workers.api.schema import KEY, PAGE, asked, operation, shown
from workers.api.serializers import ErrorSerializer

EXAMPLE: Final[dict[str, Any]] = {
    "id": 31,
    "owner": {"id": "17", "url": "http://localhost:8000/v1/tasks/17"},
    "event": "ended",
    "url": "https://client.example/hooks/gantry",
    "state": "due",
    "attempts": [
        {
            "at": "2026-11-22T10:00:01.100000Z",
            "status": 503,
            "error": "the receiver answered 503",
            "ms": 41,
        }
    ],
    "next_at": "2026-11-22T10:00:06.400000Z",
    "tenant": "default",
    "family": "tasks",
    "sequence": 2,
    "webhook_id": "msg_0d5a0e4c0c6a4c6f8f0f2f7a3b1c9d11",
    "receiver": "https://client.example:443",
    "created_at": "2026-11-22T10:00:01.020000Z",
    "delivered_at": None,
}
DETAIL_EXAMPLE: Final[dict[str, Any]] = {
    **EXAMPLE,
    "body": '{"taskId":17,"result":"FINISHED","message":"Command exited with status 0"}',
}
AGAIN_EXAMPLE: Final[dict[str, Any]] = {**DETAIL_EXAMPLE, "next_at": "2026-11-25T08:00:00.000000Z"}
DISABLED_EXAMPLE: Final[dict[str, Any]] = {
    "id": 4,
    "tenant": "default",
    "url": "https://client.example/hooks/old",
    "at": "2026-11-22T10:00:01.100000Z",
}
SECRET_EXAMPLE: Final[dict[str, Any]] = {
    "id": 2,
    "shown": True,
    "created_at": "2026-11-22T10:00:00.000000Z",
    "revoked_at": None,
}
_ALL: Final = OpenApiParameter(
    "all_tenants", bool, description="1: of every tenant; needs the scope operate."
)
_ID: Final = OpenApiParameter("callback_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_DISABLED_ID: Final = OpenApiParameter("disabled_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_SECRET_ID: Final = OpenApiParameter("secret_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_TAG: Final = "callbacks"

CALLBACKS: Final = operation(
    "callbacks_list",
    _TAG,
    "List callbacks, the newest first",
    {200: s.CallbackSerializer(many=True)},
    parameters=[
        OpenApiParameter("state", str, enum=["due", "delivered", "dead", "disabled"]),
        OpenApiParameter("url", str, description="The whole URL."),
        OpenApiParameter("receiver", str, description="host:port, or scheme://host:port."),
        OpenApiParameter("family", str),
        OpenApiParameter("owner", str, description="The id of what it is about, e.g. a taskId."),
        OpenApiParameter("event", str, description="running or ended."),
        OpenApiParameter("created_after", OpenApiTypes.DATETIME, description="This moment included."),
        OpenApiParameter("created_before", OpenApiTypes.DATETIME, description="This moment not included."),
        *PAGE,
        _ALL,
    ],
    examples=[shown("a callback", EXAMPLE)],
)
CALLBACK: Final = operation(
    "callbacks_retrieve",
    _TAG,
    "One callback with its body and attempts",
    {200: s.CallbackDetailSerializer, 404: ErrorSerializer},
    parameters=[_ID, _ALL],
    examples=[shown("a callback", DETAIL_EXAMPLE)],
)
REPLAY: Final = operation(
    "callbacks_replay",
    _TAG,
    "Send a callback again, under the same webhook-id",
    {200: s.CallbackDetailSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[_ID, _ALL],
    examples=[shown("due again", AGAIN_EXAMPLE)],
)
REPLAY_RANGE: Final = operation(
    "callbacks_replay_range",
    _TAG,
    "Send again the callbacks of a time range, the dead ones without a state",
    {200: s.ReplayedSerializer},
    parameters=[_ALL],
    request=s.ReplayRangeSerializer,
    examples=[
        asked(
            "an outage",
            {"from": "2026-11-20T00:00:00Z", "to": "2026-11-22T00:00:00Z", "state": "dead"},
        ),
        shown("done", {"replayed": 112, "more": False}),
    ],
)
TEST: Final = operation(
    "callbacks_test",
    _TAG,
    "Send a signed ping to a URL now",
    {200: s.CallbackTestedSerializer},
    request=s.CallbackTestSerializer,
    examples=[
        asked("my receiver", {"url": "https://client.example/hooks/gantry"}),
        shown(
            "it works",
            {
                "url": "https://client.example/hooks/gantry",
                "webhook_id": "msg_5e0d3d0d7e1c4f2aa5c3a4a1b2c3d4e5",
                "delivered": True,
                "status": 204,
                "error": None,
                "ms": 38,
            },
        ),
    ],
)
DISABLED: Final = operation(
    "callbacks_disabled_list",
    _TAG,
    "List URLs that answered 410",
    {200: s.DisabledUrlSerializer(many=True)},
    parameters=[*PAGE, _ALL],
    examples=[shown("a disabled URL", DISABLED_EXAMPLE)],
)
ENABLE: Final = operation(
    "callbacks_disabled_enable",
    _TAG,
    "Let callbacks go to a URL again",
    {200: s.DisabledUrlSerializer, 404: ErrorSerializer},
    parameters=[_DISABLED_ID, _ALL],
    examples=[shown("enabled", DISABLED_EXAMPLE)],
)
SECRETS: Final = operation(
    "callbacks_secrets_list",
    _TAG,
    "List the tenant's callback secrets, without their values",
    {200: s.CallbackSecretSerializer(many=True)},
    parameters=PAGE,
    examples=[shown("a secret", SECRET_EXAMPLE)],
)
SECRET_CREATE: Final = operation(
    "callbacks_secrets_create",
    _TAG,
    "Make a callback secret; its value is shown in this answer only",
    {201: s.CallbackSecretWithValueSerializer, 409: ErrorSerializer},
    parameters=[KEY],
    examples=[
        shown("made", {**SECRET_EXAMPLE, "secret": "whsec_..."}, "201"),
    ],
)
SECRET_REVOKE: Final = operation(
    "callbacks_secrets_revoke",
    _TAG,
    "End a callback secret",
    {200: s.CallbackSecretSerializer, 404: ErrorSerializer},
    parameters=[_SECRET_ID],
    examples=[shown("ended", {**SECRET_EXAMPLE, "revoked_at": "2026-12-01T08:00:00.000000Z"})],
)
