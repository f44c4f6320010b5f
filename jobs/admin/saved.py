"""Operators look at saved jobs and their starts here; they change nothing.

Secrets are asterisks, values of environments are masked. Nothing here counts or sorts a whole table.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobs.models import Executor, Job
from jobs.saved import reading, wire
from jobs.saved.requests import words
from workers import services
from workers.admin import ReadOnly
from workers.vocabulary.errors import EngineError

#: Most targets and starts on a page.
_SHOWN = 100


@admin.register(Job)
class JobAdmin(ReadOnly):
    """Every saved job of every tenant, deleted ones included."""

    list_display = ("id", "uuid", "app_name", "name", "tenant", "created_at", "deleted_at")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    search_help_text = "A job's number, or its whole name"
    fields = (
        *("uuid", "tenant", "app_name", "service_name", "name", "cmd", "secrets", "privileged", "user"),
        *("environment", "created_at", "deleted_at", "starts"),
    )
    readonly_fields = fields

    @admin.display(description="Secret arguments")
    def secrets(self, job: Job) -> str:
        """As the API shows them."""
        return " ".join(wire.masks(job.secret_lengths)) or "-"

    @admin.display(description="Environment")
    def environment(self, job: Job) -> str:
        """Names only."""
        return ", ".join(f"{str(item).partition('=')[0]}=***" for item in job.env) or "-"

    @admin.display(description="Starts")
    def starts(self, job: Job) -> SafeString:
        """The newest 100."""
        rows = Executor.objects.filter(job=job).order_by("-number").values_list("pk", "number")[:_SHOWN]
        return format_html_join("", '<a href="/admin/jobs/executor/{}/change/">{}</a><br>', rows)


@admin.register(Executor)
class ExecutorAdmin(ReadOnly):
    """Starts of saved jobs: what runs where, and why it waits."""

    list_display = ("id", "number", "created_at", "app_name", "name", "tenant")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    search_fields = ("name",)
    search_help_text = "A start's number, or its job's whole name"
    fields = (
        "number",
        "created_at",
        "job",
        "tenant",
        "app_name",
        "name",
        "what",
        "privileged",
        "user",
        "repeats",
        "targets",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Executor]:
        return super().get_queryset(request).select_related("tenant")

    @admin.display(description="Created at", ordering="-pk")
    def created_at(self, executor: Executor) -> datetime:
        """The number is the same in seconds since 1970, which nobody reads."""
        return datetime.fromtimestamp(executor.create_time, UTC)

    @admin.display(description="What it executes")
    def what(self, executor: Executor) -> SafeString:
        """The words, secrets as asterisks."""
        shown: list[Any] = [*words(executor.cmd), *wire.masks(executor.secret_lengths)]
        return format_html("<code>{}</code>", format_html_join(" ", "{}", ((word,) for word in shown)))

    @admin.display(description="Repeats")
    def repeats(self, executor: Executor) -> str:
        """The start whose failures it repeats."""
        return "-" if executor.retry_of is None else str(executor.retry_of.number)

    @admin.display(description="Targets")
    def targets(self, executor: Executor) -> SafeString:
        """The first 100 with their runs and, for those that have not ended, why they are where they are."""
        rows = []
        for target in reading.targets([executor.pk])[executor.pk][:_SHOWN]:
            status = wire.status(target)
            why = wire.error(target) if wire.failed(target) else "" if status in wire.ENDED else _why(target)
            rows.append(
                (target.container, target.node, status, why, target.run_id or "", target.run_id or "-")
            )
        return format_html_join(
            "", '{} on {}: {} {} <a href="/admin/workers/run/{}/change/">run {}</a><br>', rows
        )


def _why(target: wire.TargetFacts) -> str:
    try:
        told: Any = services.explain(None, target.run_id or 0)
    except EngineError as error:
        return error.message
    return "; ".join(str(item["message"]) for item in told["reasons"])
