"""/api/v1/keys: reading needs the scope read, replacing submit. No answer holds a private key."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers.api.answers import ApiView, Page, answer, created, known_parameters
from workers.api.keys import schema, shapes
from workers.models import SigningKey
from workers.tenants import signing_keys


class KeysView(ApiView):
    """/api/v1/keys"""

    @extend_schema(**schema.KEYS)
    def get(self, request: Request) -> HttpResponse:
        """The tenant's keys, the newest first; the first is made by the first receipt."""
        known_parameters(request, ("limit", "cursor"))
        page = Page.of(request)
        rows = SigningKey.objects.filter(tenant_id=self.who().tenant_id).order_by("-pk")
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        return page.answer(request, list(rows[: page.limit + 1]), shapes.key, lambda row: row.pk)

    @extend_schema(**schema.KEY_CREATE)
    def post(self, request: Request) -> HttpResponse:
        """Sign with a new key from now on."""
        who = self.who()

        def create() -> tuple[int, dict[str, Any]]:
            return 201, shapes.key(signing_keys.replace(who.tenant_id))

        status, body = created(request, who, create)
        return answer(body, status)
