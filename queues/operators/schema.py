"""What the OpenAPI document says about /api/v1/queues. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter

from queues.operators import serializers as s
from workers.api.schema import KEY, PAGE, asked, operation, shown
from workers.api.serializers import ErrorSerializer

_TAG: Final = "queues"
_TYPE: Final = OpenApiParameter(
    "type", str, OpenApiParameter.PATH, description="The type of the queues: vm, kube, or any other word."
)
_AGGREGATE: Final = OpenApiParameter(
    "aggregate", str, OpenApiParameter.PATH, description="The aggregate's name, percent-encoded."
)
_OWNER: Final = OpenApiParameter(
    "owner_id",
    str,
    OpenApiParameter.PATH,
    description="As requests have it, percent-encoded. If it ends with a slash, add another one.",
)

POOL_EXAMPLE: Final[dict[str, Any]] = {
    "type": "vm",
    "aggregate": "rack-1",
    "hosts": [
        {"name": "h1", "VCPU": 16, "Memory": 65536, "Disk": 500},
        {"name": "h2", "VCPU": 16, "Memory": 65536, "Disk": 500},
    ],
}
_DECLARED: Final = {name: value for name, value in POOL_EXAMPLE.items() if name != "type"}
POLICY_EXAMPLE: Final[dict[str, Any]] = {"type": "vm", "mode": "best_effort", "provider": "pools"}
QUOTA_EXAMPLE: Final[dict[str, Any]] = {
    "type": "vm",
    "owner_id": "project/7",
    "quota": {"VCPU": 32, "Memory": 131072},
    "held": {"VCPU": 8, "Memory": 16384, "Disk": 80},
}
CAPACITY_EXAMPLE: Final[dict[str, Any]] = {
    "type": "vm",
    "provider": "pools",
    "mode": "strict",
    "as_of": "2026-11-22T10:00:00.000000Z",
    "trouble": None,
    "aggregates": [
        {
            "name": "rack-1",
            "hosts": [
                {
                    "name": "h1",
                    "total": {"Disk": 500, "Memory": 65536, "VCPU": 8},
                    "used": {"Disk": 80, "Memory": 16384, "VCPU": 12},
                    "free": {"Disk": 420, "Memory": 49152, "VCPU": 0},
                    "over": {"VCPU": 4},
                }
            ],
        }
    ],
    "waiting": 12,
    "running": 3,
    "estimate": {"coverage_p90": 0.91, "median_error": 0.3, "samples": 500, "method": "forward"},
}

POOLS: Final = operation(
    "queue_pools_list",
    _TAG,
    "The aggregates of a type that the tenant may use; operators see all",
    {200: s.PoolSerializer(many=True)},
    parameters=[_TYPE, *PAGE],
    examples=[shown("an aggregate", POOL_EXAMPLE)],
)
POOL_DECLARE: Final = operation(
    "queue_pools_declare",
    _TAG,
    "Declare an aggregate of hosts, or replace it",
    {200: s.PoolSerializer, 201: s.PoolSerializer},
    parameters=[_TYPE, KEY],
    request=s.PoolChangeSerializer,
    examples=[
        asked("two hosts", _DECLARED),
        asked("for two tenants only", {**_DECLARED, "tenants": ["lab", "shop"]}),
        shown("replaced", POOL_EXAMPLE),
        shown("declared", POOL_EXAMPLE, "201"),
    ],
)
POOL: Final = operation(
    "queue_pools_retrieve",
    _TAG,
    "One aggregate as it is declared",
    {200: s.PoolSerializer, 404: ErrorSerializer},
    parameters=[_TYPE, _AGGREGATE],
    examples=[shown("an aggregate", POOL_EXAMPLE)],
)
POOL_REMOVE: Final = operation(
    "queue_pools_remove",
    _TAG,
    "Take an aggregate away; what runs there keeps what it holds until it ends",
    {200: s.PoolSerializer, 404: ErrorSerializer},
    parameters=[_TYPE, _AGGREGATE],
    examples=[shown("as it was", POOL_EXAMPLE)],
)
POLICY: Final = operation(
    "queue_policy_retrieve",
    _TAG,
    "How a type is admitted, and where its capacity comes from",
    {200: s.PolicySerializer},
    parameters=[_TYPE],
    examples=[shown("a policy", POLICY_EXAMPLE)],
)
POLICY_PUT: Final = operation(
    "queue_policy_put",
    _TAG,
    "Change how a type is admitted",
    {200: s.PolicySerializer},
    parameters=[_TYPE],
    request=s.PolicyChangeSerializer,
    examples=[
        asked("smaller ones may pass", {"mode": "best_effort"}),
        asked("everything in order", {"mode": "strict", "provider": "pools"}),
        shown("changed", POLICY_EXAMPLE),
    ],
)
QUOTAS: Final = operation(
    "queue_quotas_list",
    _TAG,
    "The tenant's owners that have a quota of a type",
    {200: s.QuotaSerializer(many=True)},
    parameters=[_TYPE, *PAGE],
    examples=[shown("an owner", QUOTA_EXAMPLE)],
)
QUOTA: Final = operation(
    "queue_quotas_retrieve",
    _TAG,
    "What an owner may have and has",
    {200: s.QuotaSerializer, 404: ErrorSerializer},
    parameters=[_TYPE, _OWNER],
    examples=[shown("an owner", QUOTA_EXAMPLE)],
)
QUOTA_PUT: Final = operation(
    "queue_quotas_put",
    _TAG,
    "Give an owner quotas, in the place of all that it had; resources that are not named have none",
    {200: s.QuotaSerializer},
    parameters=[_TYPE, _OWNER],
    request={"application/json": s.AMOUNTS},
    examples=[asked("CPUs and memory", QUOTA_EXAMPLE["quota"]), shown("as it is now", QUOTA_EXAMPLE)],
)
QUOTA_REMOVE: Final = operation(
    "queue_quotas_remove",
    _TAG,
    "Let an owner have as much as there is",
    {200: s.QuotaSerializer, 404: ErrorSerializer},
    parameters=[_TYPE, _OWNER],
    examples=[shown("no quota any more", {**QUOTA_EXAMPLE, "quota": {}})],
)
CAPACITY: Final = operation(
    "queue_capacity_retrieve",
    _TAG,
    "What there is of a type, what is used and what is free, host by host",
    {200: s.CapacitySerializer},
    parameters=[_TYPE],
    examples=[shown("a host that was shrunk below what is used", CAPACITY_EXAMPLE)],
)
SIMULATE: Final = operation(
    "queue_simulate",
    _TAG,
    "What would run and where everything would stand if: changes nothing",
    {200: s.SimulatedSerializer, 404: ErrorSerializer, 409: ErrorSerializer},
    parameters=[_TYPE],
    request=s.SimulationSerializer,
    examples=[
        asked(
            "one more in front, another one gone",
            {
                "submit": [{"owner_id": "y", "data": {"instances": [{"VCPU": 4}]}}],
                "move": [{"request_id": "d", "before": "a"}],
                "withdraw": ["b"],
            },
        ),
        shown(
            "what would be",
            {
                "runs_now": ["d"],
                "entries": [
                    {
                        "request_id": "simulated-0",
                        "position": 2,
                        "estimate": {"p50_s": 95.0, "p90_s": 240.0, "method": "forward", "samples": 120},
                    },
                    {
                        "request_id": "a",
                        "position": 1,
                        "estimate": {"unknown": "because ..."},
                    },
                ],
                "approximate": False,
            },
        ),
    ],
)
