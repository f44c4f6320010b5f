"""What the routes of this family share in the OpenAPI document. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.views import APIView

V = TypeVar("V", bound=APIView)

PAGE: Final = [
    OpenApiParameter("limit", int, description="1 to 1000; without it everything is answered."),
    OpenApiParameter("cursor", str, description="Where the page begins: from the Link header."),
]


class WorkqueueErrorBodySerializer(serializers.Serializer[object]):
    """What is wrong."""

    code = serializers.IntegerField(help_text="The HTTP status.")
    message = serializers.CharField(help_text="What is wrong and what to do.")


class WorkqueueErrorSerializer(serializers.Serializer[object]):
    """Every error of this family."""

    error = WorkqueueErrorBodySerializer()


def errors(*statuses: int) -> dict[Any, Any]:
    """Errors of a route of its own; those that every route may answer are added by config.http.openapi."""
    return dict.fromkeys(statuses, WorkqueueErrorSerializer)


def failed(status: int, message: str) -> OpenApiExample:
    return OpenApiExample(
        message,
        value={"error": {"code": status, "message": message}},
        response_only=True,
        status_codes=[str(status)],
    )


def later(view: type[V], **operations: dict[str, Any]) -> type[V]:
    """The view as it is mounted at v1.1. ``operations``: what its methods have there, get=..., post=..."""
    described = {
        method: extend_schema(**{**operation, "operation_id": _renamed(operation["operation_id"])})
        for method, operation in operations.items()
    }
    made = type(f"Later{view.__name__}", (view,), {"later": True, "__doc__": view.__doc__})
    return extend_schema_view(**described)(made)


def _renamed(operation_id: str) -> str:
    return operation_id.replace("workqueue_", "workqueue_v11_", 1)
