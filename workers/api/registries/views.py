"""/api/v1/registries: what the tenant shows private registries when its images are pulled.

A tenant's own things: reading needs the scope read, changing submit. No answer holds a password.
"""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers.api.answers import ApiView, Page, answer, checked, known_parameters
from workers.api.registries import schema, serializers, shapes
from workers.models import Registry
from workers.tenants import registries
from workers.vocabulary.errors import InvalidInput


class RegistriesView(ApiView):
    """/api/v1/registries"""

    scopes: ClassVar[dict[str, str]] = {"GET": "read"}

    @extend_schema(**schema.REGISTRIES)
    def get(self, request: Request) -> HttpResponse:
        """The tenant's registries by name."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        rows = Registry.objects.filter(tenant_id=self.who().tenant_id, host__gt=page.cursor).order_by("host")
        return page.answer(request, list(rows[: page.limit + 1]), shapes.registry, lambda row: row.host)


class RegistryView(ApiView):
    """/api/v1/registries/{registry}"""

    scopes: ClassVar[dict[str, str]] = {"PUT": "submit", "DELETE": "submit"}

    @extend_schema(**schema.REGISTRY_PUT)
    def put(self, request: Request, registry: str) -> HttpResponse:
        """Store or replace credentials."""
        wanted = checked(serializers.RegistryChangeSerializer(data=request.data))
        if closed := self.who().bounds.registry(registries.host(registry)):
            raise InvalidInput(closed, field="registry")
        row = registries.put(self.who().tenant_id, registry, wanted["username"], wanted["password"])
        return answer(shapes.registry(row))

    @extend_schema(**schema.REGISTRY_REMOVE)
    def delete(self, request: Request, registry: str) -> HttpResponse:
        """Forget credentials; the password is deleted at once."""
        return answer(shapes.registry(registries.remove(self.who().tenant_id, registry)))
