"""What the OpenAPI document says about registries. As ``workers.api.schema``."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter

from workers.api.registries import serializers as s
from workers.api.schema import PAGE, TENANT_HEADER, asked, operation, shown
from workers.api.serializers import ErrorSerializer

REGISTRY_EXAMPLE: Final[dict[str, Any]] = {
    "registry": "registry.example:5000",
    "username": "robot",
    "created_at": "2026-11-22T10:00:00.000000Z",
    "updated_at": "2026-11-22T10:00:00.000000Z",
}
_REGISTRY: Final = OpenApiParameter(
    "registry",
    str,
    OpenApiParameter.PATH,
    description="host or host:port, as in the images' names; Docker Hub is docker.io.",
)
REGISTRIES: Final = operation(
    "registries_list",
    "registries",
    "The private registries for which the tenant has stored credentials",
    {200: s.RegistrySerializer(many=True)},
    parameters=[TENANT_HEADER, *PAGE],
    examples=[shown("a registry", REGISTRY_EXAMPLE)],
)
REGISTRY_PUT: Final = operation(
    "registries_put",
    "registries",
    "Store or replace credentials for a registry; they are shown to it when images are pulled",
    {200: s.RegistrySerializer},
    parameters=[TENANT_HEADER, _REGISTRY],
    request=s.RegistryChangeSerializer,
    examples=[
        asked("a robot account", {"username": "robot", "password": "..."}),
        shown("stored", REGISTRY_EXAMPLE),
    ],
)
REGISTRY_REMOVE: Final = operation(
    "registries_remove",
    "registries",
    "Forget the credentials for a registry",
    {200: s.RegistrySerializer, 404: ErrorSerializer},
    parameters=[TENANT_HEADER, _REGISTRY],
    examples=[shown("forgotten", REGISTRY_EXAMPLE)],
)
