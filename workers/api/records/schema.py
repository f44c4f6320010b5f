"""What the OpenAPI document says about limits, usage and the audit log. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter

from workers.api.records import serializers as s
from workers.api.schema import ALL, PAGE, operation, shown

STANDING_EXAMPLE: Final[dict[str, Any]] = {
    "waiting_runs": {"used": 120, "limit": 5000},
    "running_runs": {"used": 50, "limit": 50},
    "requests_per_s": {"limit": None},
}
USAGE_EXAMPLE: Final[dict[str, Any]] = {
    "tenant": "lab",
    "family": "tasks",
    "runs": {"succeeded": 1200, "failed": 14, "cancelled": 3},
    "attempts": 1230,
    "cpu_s": 8600.5,
    "mem_mb_s": 4403200,
    "log_bytes": 73400320,
    "callbacks": {"delivered": 412, "dead": 3},
}
AUDIT_EXAMPLE: Final[dict[str, Any]] = {
    "id": 77,
    "at": "2026-11-22T10:00:00.000000Z",
    "user": "ann",
    "token_prefix": "gnt_Xy1_",
    "via": "token",
    "peer": "192.0.2.7",
    "tenant": "lab",
    "method": "POST",
    "route": "api/v1/runs/<int:run_id>/cancel",
    "objects": {"run_id": 12},
    "status": 200,
    "request_id": "8c1f0c5d7a6b4e21",
}

LIMITS: Final = operation(
    "limits_retrieve",
    "tenancy",
    "What the tenant may have at most, and what it has now",
    {200: s.StandingSerializer},
    examples=[shown("a tenant at its limit", STANDING_EXAMPLE)],
)
USAGE: Final = operation(
    "usage_list",
    "tenancy",
    "What ended from one day to another, both included: runs, reserved CPU and memory, output",
    {200: s.UsageSerializer(many=True)},
    parameters=[
        OpenApiParameter("from", OpenApiTypes.DATE, description="First day (UTC); 29 days before `to`."),
        OpenApiParameter("to", OpenApiTypes.DATE, description="Last day (UTC); today."),
        ALL,
    ],
    examples=[shown("commands of a month", USAGE_EXAMPLE)],
)
AUDIT: Final = operation(
    "audit_list",
    "operations",
    "Who changed what, the newest first",
    {200: s.AuditEntrySerializer(many=True)},
    parameters=[
        OpenApiParameter("tenant", str, description="For which tenant the caller acted."),
        OpenApiParameter("user", str),
        OpenApiParameter("method", str, description="POST, PUT, PATCH or DELETE."),
        OpenApiParameter("after", OpenApiTypes.DATETIME, description="This moment included."),
        OpenApiParameter("before", OpenApiTypes.DATETIME, description="This moment not included."),
        *PAGE,
    ],
    examples=[shown("a cancel", AUDIT_EXAMPLE)],
)
