"""The peer: what a careful Django programmer would write in ten minutes. Same authentication as ours."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import connection
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

TABLE = """
    CREATE TABLE IF NOT EXISTS bench_item (
        id bigserial PRIMARY KEY, name text NOT NULL, command text NOT NULL, cpu double precision NOT NULL,
        state text NOT NULL DEFAULT 'new', created_at timestamptz NOT NULL DEFAULT now(), exit_code int)
"""


class ItemSerializer(serializers.Serializer[Any]):
    """Three fields, validated as DRF does it."""

    name = serializers.CharField(max_length=255)
    command = serializers.CharField()
    cpu = serializers.FloatField(default=0.1)


class BareView(APIView):
    """One INSERT; one SELECT by key."""

    scopes: ClassVar[dict[str, str]] = {"GET": "read", "POST": "submit"}

    def post(self, request: Request) -> Response:
        return Response({"id": insert(request)})


class DelayView(BareView):
    """One INSERT and one Celery message."""

    def post(self, request: Request) -> Response:
        from tests.bench.peer_celery import run_command

        item = insert(request)
        run_command.delay(item)
        return Response({"id": item})


class ReadView(APIView):
    """One SELECT by key."""

    scopes: ClassVar[dict[str, str]] = {"GET": "read"}

    def get(self, request: Request, item_id: int) -> Response:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, name, command, cpu, state, created_at FROM bench_item WHERE id = %s", [item_id]
            )
            row = cursor.fetchone()
        keys = ("id", "name", "command", "cpu", "state", "created_at")
        return Response(dict(zip(keys, row, strict=True)))


def insert(request: Request) -> int:
    """Validate and store; returns the id."""
    item = ItemSerializer(data=request.data)
    item.is_valid(raise_exception=True)
    given = item.validated_data
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bench_item (name, command, cpu) VALUES (%s, %s, %s) RETURNING id",
            [given["name"], given["command"], given["cpu"]],
        )
        return int(cursor.fetchone()[0])


urlpatterns = [
    path("bare", BareView.as_view()),
    path("delay", DelayView.as_view()),
    path("bare/<int:item_id>", ReadView.as_view()),
]
