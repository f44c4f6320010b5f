"""/api/v1/limits, /usage and /audit: what a tenant may have and has used, and who changed what."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers.api.answers import ApiView, Page, answer, known_parameters, moment
from workers.api.records import schema, shapes
from workers.models import AuditEntry
from workers.tenants import audit, usage
from workers.vocabulary.errors import InvalidInput

_DEFAULT_D: Final = 30


def _day(request: Request, name: str) -> date | None:
    """A parameter that is a date; the day of a time is as good."""
    found = moment(request, name)
    return None if found is None else found.date()


class LimitsView(ApiView):
    """/api/v1/limits"""

    @extend_schema(**schema.LIMITS)
    def get(self, request: Request) -> HttpResponse:
        """What the tenant may have, and what it has."""
        known_parameters(request, ())
        return answer(shapes.standing(usage.standing(self.who().tenant_id)))


class UsageView(ApiView):
    """/api/v1/usage"""

    @extend_schema(**schema.USAGE)
    def get(self, request: Request) -> HttpResponse:
        """What the tenant used from one day to another, both included."""
        known_parameters(request, ("from", "to", "all_tenants"))
        last = _day(request, "to") or datetime.now(UTC).date()
        first = _day(request, "from")
        if first is None:
            first = max(date.min + timedelta(days=_DEFAULT_D), last) - timedelta(days=_DEFAULT_D - 1)
        if first > last:
            raise InvalidInput("from lies after to", field="from")
        if (last - first).days >= usage.LONGEST_D:
            raise InvalidInput(
                f"from and to span more than {usage.LONGEST_D} days: ask for less", field="from"
            )
        rows = usage.report(self.tenant_id(), first, last)
        return answer([shapes.family_usage(row) for row in rows])


class AuditView(ApiView):
    """/api/v1/audit"""

    required_scope = "operate"

    @extend_schema(**schema.AUDIT)
    def get(self, request: Request) -> HttpResponse:
        """Changing calls, the newest first."""
        known_parameters(request, ("tenant", "user", "method", "after", "before", "limit", "cursor"))
        page, given = Page.of(request), request.query_params
        rows = AuditEntry.objects.order_by("-pk")
        for name, column in (("tenant", "tenant_name"), ("user", "user_name"), ("method", "method")):
            if name in given:
                rows = rows.filter(**{column: given[name]})
        after, before = moment(request, "after"), moment(request, "before")
        if after is not None:
            rows = rows.filter(at__gte=after)
        if before is not None:
            rows = rows.filter(at__lt=before)
        if (last := page.number()) is not None:
            rows = rows.filter(pk__lt=last)
        if audit.is_running():
            audit.flush()
        return page.answer(request, list(rows[: page.limit + 1]), shapes.audit_entry, lambda row: row.pk)
