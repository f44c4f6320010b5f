"""/healthz, /readyz and /metrics: for load balancers, operators and Prometheus.

Must not import views of families.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpResponse, JsonResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from config import checks
from config.http import metrics
from workers.callbacks import outbox
from workers.messages import doorbell

#: Longest wait for the broker, in seconds: a silent one must not make this page late.
PING_S: Final = 0.3
#: How long an answer of the broker is believed, in seconds.
PING_KEPT_S: Final = 1.0

_lock = threading.Lock()
_client: redis.Redis | None = None
_broker: tuple[float, str] = (0.0, "")
_migrated = False


def broker_state() -> str:
    """ "ok" or "down: why"; the service takes work without it, nodes only notice it a little later."""
    global _client, _broker
    with _lock:
        if time.monotonic() < _broker[0]:
            return _broker[1]
        if _client is None:
            _client = doorbell.connect(PING_S)
        try:
            _client.ping()
            state = "ok"
        except redis.RedisError as error:
            state = f"down: {type(error).__name__}; nodes look for work every {settings.GANTRY_LOOK_S:g} s"
        _broker = (time.monotonic() + PING_KEPT_S, state)
        return state


def database_state() -> tuple[str, dict[str, int]]:
    """("ok" or what is wrong, nodes by state). The driver's text names hosts and users: it is not shown."""
    global _migrated
    try:
        if not _migrated:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
            if missing:
                return f"{len(missing)} migrations are not applied: run manage.py migrate", {}
            _migrated = True
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT count(*) FILTER (WHERE mode = 'ready' AND age <= %(lease)s AND NOT detached),
                       count(*) FILTER (WHERE mode = 'draining' AND age <= %(lease)s AND NOT detached),
                       count(*) FILTER (WHERE age > %(lease)s OR detached)
                  FROM (SELECT mode, detached, extract(epoch FROM now() - heartbeat_at) AS age
                          FROM workers_node WHERE mode <> 'removed') n
                """,
                {"lease": settings.GANTRY_LEASE_S},
            )
            ready, draining, silent = cursor.fetchone()
    except (OperationalError, InterfaceError):
        return "down: it does not answer; see DATABASE_URL and the log", {}
    return "ok", {"ready": ready, "draining": draining, "silent": silent}


class PublicView(APIView):
    """Answers without credentials."""

    authentication_classes = ()
    permission_classes = ()


class HealthView(PublicView):
    """/healthz"""

    @extend_schema(
        operation_id="healthz",
        summary="Is the process alive?",
        tags=["operations"],
        responses={200: inline_serializer("Health", {"status": serializers.CharField()})},
        examples=[OpenApiExample("alive", value={"status": "ok"}, response_only=True)],
    )
    def get(self, request: Request) -> HttpResponse:
        """Always ok while the process answers; asks neither the database nor the broker."""
        return JsonResponse({"status": "ok"})


_READY: Final[dict[str, Any]] = {
    "status": "ready",
    "database": "ok",
    "broker": "ok",
    "nodes": {"ready": 3, "draining": 0, "silent": 1},
    "warnings": [],
}
_ready_shape = inline_serializer(
    "Readiness",
    {
        "status": serializers.ChoiceField(choices=["ready", "not ready"]),
        "database": serializers.CharField(help_text="ok, or what is wrong"),
        "broker": serializers.CharField(help_text='"ok" or "down: why"; work is taken either way'),
        "nodes": serializers.DictField(child=serializers.IntegerField()),
        "warnings": serializers.ListField(child=serializers.CharField()),
    },
)


class ReadyView(PublicView):
    """/readyz"""

    @extend_schema(
        operation_id="readyz",
        summary="Can it take work?",
        tags=["operations"],
        responses={200: _ready_shape, 503: _ready_shape},
        examples=[OpenApiExample("ready", value=_READY, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> HttpResponse:
        """200 when work can be accepted: the database answers and is migrated. The broker may be down."""
        database, nodes = database_state()
        warnings = [f"{message.id}: {message.msg}" for message in checks.all_settings()]
        if nodes and not nodes["ready"]:
            warnings.append("no node takes work now: what is submitted waits")
        if database == "ok" and (trouble := outbox.delivery_trouble()):
            warnings.append(trouble)
        body = {
            "status": "ready" if database == "ok" else "not ready",
            "database": database,
            "broker": broker_state(),
            "nodes": nodes,
            "warnings": warnings,
        }
        return JsonResponse(body, status=200 if database == "ok" else 503)


class MetricsView(APIView):
    """/metrics"""

    required_scope = "operate"

    @extend_schema(
        operation_id="metrics",
        summary="Gauges and counters for Prometheus",
        tags=["operations"],
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> HttpResponse:
        """Prometheus' text form; needs the scope operate. Counters are this process's own."""
        text, content_type = metrics.page()
        return HttpResponse(text, content_type=content_type)
