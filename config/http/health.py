"""/healthz, /readyz and /metrics: for load balancers, operators and Prometheus.

Must not import views of families.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import redis
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
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
#: How long it is believed that the database takes, or does not take, something new, in seconds.
WRITE_KEPT_S: Final = 2.0
_DISK_FULL: Final = "53100"

_lock = threading.Lock()
_client: redis.Redis | None = None
_broker: tuple[float, str] = (0.0, "")
_migrated = False
_write_lock = threading.Lock()
_written: tuple[float, str] = (0.0, "")


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


def database_state() -> tuple[str, dict[str, int], list[str]]:
    """("ok" or what is wrong, nodes by state, what is wrong with nodes).

    The driver's text names hosts and users: it is not shown. Nor are the names of nodes: whoever asks needs
    no credentials.
    """
    global _migrated
    try:
        if not _migrated:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
            if missing:
                return f"{len(missing)} migrations are not applied: run manage.py migrate", {}, []
            _migrated = True
        if full := _writable():
            return full, {}, []
        with connection.cursor() as cursor:
            cursor.execute(
                """
                SELECT count(*) FILTER (WHERE mode = 'ready' AND age <= %(lease)s AND NOT detached),
                       count(*) FILTER (WHERE mode = 'draining' AND age <= %(lease)s AND NOT detached),
                       count(*) FILTER (WHERE age > %(lease)s OR detached),
                       count(*) FILTER (WHERE age > %(lease)s AND NOT detached),
                       count(*) FILTER (WHERE age <= %(lease)s AND NOT detached AND words <> ''),
                       count(*) FILTER (WHERE age <= %(lease)s AND NOT detached AND words = ''
                                          AND kinds <> '{}'),
                       (SELECT string_agg(DISTINCT kind, ', ' ORDER BY kind)
                          FROM workers_node, jsonb_object_keys(troubles) kind
                         WHERE mode <> 'removed' AND NOT detached
                           AND heartbeat_at >= now() - %(lease)s * interval '1 second')
                  FROM (SELECT mode, detached, trouble AS words, troubles AS kinds,
                               extract(epoch FROM now() - heartbeat_at) AS age
                          FROM workers_node WHERE mode <> 'removed') n
                """,
                {"lease": settings.GANTRY_LEASE_S},
            )
            ready, draining, silent, unheard, troubled, partly, kinds = cursor.fetchone()
    except (OperationalError, InterfaceError):
        return "down: it does not answer; see DATABASE_URL and the log", {}, []
    told = (
        (unheard, f"{_are(unheard, 'is', 'are')} silent without having been stopped"),
        (troubled, f"{_are(troubled, 'takes', 'take')} no work by itself"),
        (partly, f"{_are(partly, 'takes', 'take')} no work of some kinds (of {kinds})"),
    )
    warnings = [f"{text}: /api/v1/nodes says which, and why" for count, text in told if count]
    return "ok", {"ready": ready, "draining": draining, "silent": silent}, warnings


def _are(count: int, one: str, many: str) -> str:
    return f"1 node {one}" if count == 1 else f"{count} nodes {many}"


def _writable() -> str:
    """Why the database takes nothing new, though it answers; empty when it does. Kept for a moment.

    A sort that does not fit into its memory goes to the server's disk and leaves nothing behind: no row, no
    log of one.
    """
    global _written
    with _write_lock:
        if time.monotonic() < _written[0]:
            return _written[1]
        state = ""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL work_mem = '64kB'")
                cursor.execute(
                    "SELECT current_setting('transaction_read_only') = 'on' FROM generate_series(1, 50000) "
                    "OFFSET 49999"
                )
                if cursor.fetchone()[0]:
                    state = "read-only: it takes nothing new; is DATABASE_URL that of a standby?"
        except OperationalError as error:
            if getattr(error.__cause__, "pgcode", "") != _DISK_FULL:
                raise
            state = "full: it has no space left on its disk and takes nothing new"
        _written = (time.monotonic() + WRITE_KEPT_S, state)
        return state


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
        """200 when work can be accepted: the database answers, is migrated and can write. What is wrong
        elsewhere (the broker, nodes, their engines and launchers, callbacks) is a warning.
        """
        database, nodes, troubles = database_state()
        warnings = [*(f"{message.id}: {message.msg}" for message in checks.all_settings()), *troubles]
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
