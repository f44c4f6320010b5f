"""Operators' page of how right estimates have been, by type: what GET /api/v1/queues/{type}/capacity tells.

Must not import views.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from django.contrib import admin
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet
from django.db.models.functions import JSONObject
from django.http import HttpRequest

from queues.estimates.calibration import LEVEL, WINDOW, Outcome, accuracy
from queues.models import Calibration, Told
from workers.admin import ReadOnly


@admin.register(Calibration)
class CalibrationAdmin(ReadOnly):
    """Of the last entries of each type that were admitted: what they were told against what it was."""

    list_display = ("type", "held", "error", "outcomes", "usual_method", "factor")
    #: Each row reads as many outcomes as count.
    list_per_page = 20
    search_fields = ("type",)
    search_help_text = "A whole type"
    fields = list_display
    readonly_fields = list_display

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return ("type",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Calibration]:
        """With the outcomes, so that a page is one query."""
        known = (
            Told.objects.filter(type=OuterRef("type"), waited_s__isnull=False)
            .order_by("-admitted_at")
            .values(row=JSONObject(p50="p50_s", p90="p90_s", waited="waited_s", method="method"))[:WINDOW]
        )
        rows: QuerySet[Calibration] = super().get_queryset(request)
        return rows.annotate(known=ArraySubquery(known))

    @admin.display(description=f"Within p90 (meant: {LEVEL:.0%})")
    def held(self, row: Any) -> str:
        share = _accuracy(row)["coverage_p90"]
        return "-" if share is None else f"{share:.1%}"

    @admin.display(description="Median error of p50")
    def error(self, row: Any) -> str:
        """|wait - p50| as a share of the wait."""
        share = _accuracy(row)["median_error"]
        return "-" if share is None else f"{share:.1%} of the wait"

    @admin.display(description=f"Of the last (at most {WINDOW})")
    def outcomes(self, row: Any) -> int:
        return len(row.known)

    @admin.display(description="Usual method")
    def usual_method(self, row: Any) -> str:
        common = Counter(each["method"] for each in row.known).most_common(1)
        return common[0][0] if common else "-"

    @admin.display(description="Bounds stretched")
    def factor(self, row: Calibration) -> str:
        return f"x {math.exp(row.tilt):.2f}"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(type=term) if term else queryset), False


def _accuracy(row: Any) -> dict[str, Any]:
    return accuracy([Outcome(**each) for each in row.known])
