"""Operators look at jobs here: what runs, what waits and why, what failed with its log. They change nothing.

Nothing here counts or sorts a whole table; a page has the beginning of what may be a million elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from workers.admin import ReadOnly
from workers.admin.pages import FixedFilter
from workers.vocabulary.errors import EngineError
from workqueue.book import explaining
from workqueue.jobs import wire
from workqueue.models import Batch, Element, ElementAttempt, Job
from workqueue.models.jobs import Status, Type

#: Elements of one status on a page, and characters of a log.
_SHOWN: Final = 50
_LOG_SHOWN: Final = 8192


class WorkFilter(FixedFilter):
    """Those with work left, those that have ended, and of these the ones with elements that failed."""

    title, parameter_name = "work", "work"
    values = ("left", "ended", "failed")

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in self.values:
            return queryset
        if self.value() == "failed":
            return queryset.filter(finished_at__isnull=False, num_failed__gt=0)
        return queryset.filter(finished_at__isnull=self.value() == "left")


@admin.register(Job)
class JobAdmin(ReadOnly):
    """Every job of every tenant, the newest first."""

    list_display = (
        *("id", "what", "status", "tenant", "user", "source", "target", "priority", "progress"),
        *("waiting_for", "created_at", "finished_at"),
    )
    list_filter = (WorkFilter, "tenant")
    list_select_related = ("tenant", "user", "source", "target")
    search_fields = ("pk",)
    search_help_text = "A job's number"
    fields = (
        *("id", "what", "status", "why", "progress", "bytes_done", "bytes_total"),
        *("running", "waiting", "failed"),
        *("source", "src_filepath", "target", "dst_filepath", "tenant", "user", "extra_opts", "priority"),
        *("protocol", "max_tries", "pull", "log_uid", "callback", "created_at", "changed_at"),
        *("finished_at", "cancel_requested_at", "cancelled_by_operator"),
    )
    readonly_fields = fields

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        number = int(term) if term.isascii() and term.isdigit() and len(term) <= 18 else 0
        return (queryset.filter(pk=number) if term else queryset), False

    @admin.display(description="Type")
    def what(self, job: Job) -> str:
        return Type(job.type).name

    @admin.display(description="Status")
    def status(self, job: Job) -> str:
        """As its client is told."""
        return wire.status(job).name

    @admin.display(description="Elements")
    def progress(self, job: Job) -> str:
        """How many of which status."""
        counts = ((name.removeprefix("num_"), getattr(job, name)) for name in wire.COUNTS)
        return ", ".join(f"{count} {name}" for name, count in counts if count) or "none"

    @admin.display(description="Why it is where it is")
    def why(self, job: Job) -> SafeString:
        """As its client is told."""
        try:
            told = explaining.explain(job)
        except EngineError as error:
            return format_html("{}", error.message)
        lines = ((each["message"], each["remedy"] or "nothing to do") for each in told["reasons"])
        return format_html_join("", "{} &mdash; <em>{}</em><br>", lines) or SafeString("-")

    @admin.display(description="Callback")
    def callback(self, job: Job) -> str:
        """The receiver's host only: a URL may carry a password."""
        return urlsplit(job.callback_url).hostname or "-"

    @admin.display(description="Running")
    def running(self, job: Job) -> SafeString:
        """The first 50, with their progress."""
        return _lines(_of(job, Status.RUNNING))

    @admin.display(description="Waiting")
    def waiting(self, job: Job) -> SafeString:
        """The first 50 that wait for their next try, then those that were never handed out."""
        return _lines([*_of(job, Status.SUBMITTED), *_of(job, Status.NEW)][:_SHOWN])

    @admin.display(description="Failed")
    def failed(self, job: Job) -> SafeString:
        """The first 50, each with the log of its last attempt."""
        rows = _of(job, Status.FAILED)
        found = ElementAttempt.objects.filter(job=job, number__in=[row.number for row in rows])
        logs = {each.number: each.log for each in found.order_by("number", "attempt")}
        told = (
            (row.number, _told(row), row.attempts, logs.get(row.number, "")[-_LOG_SHOWN:]) for row in rows
        )
        lines = format_html_join("", "{}: {}, {} attempts<pre>{}</pre>", told)
        whole = f"/workqueue/api/v1.0/jobs/{job.pk}/output"
        return format_html('{}<a href="{}">all logs ({})</a>', lines, whole, whole)


def _of(job: Job, status: Status) -> list[Element]:
    """The first ones; without looking where the counters say that there is none."""
    if not getattr(job, f"num_{status.name.lower()}"):
        return []
    rows = Element.objects.filter(job=job, status=status)
    if status in (Status.NEW, Status.SUBMITTED):
        rows = rows.filter(batch=None).order_by("phase", "number")  # as the index of what is left has them
    elif status is Status.RUNNING:
        open_ones = Batch.objects.filter(job=job, closed_at=None)
        rows = rows.filter(batch__in=open_ones).order_by("number")
    return list(rows[:_SHOWN] if rows.ordered else rows.order_by("number")[:_SHOWN])


def _lines(rows: Iterable[Element]) -> SafeString:
    told = ((row.number, _told(row), row.attempts, wire.monitoring(row) or "") for row in rows)
    return format_html_join("", "{}: {}, {} attempts {}<br>", told) or SafeString("-")


def _told(row: Element) -> str:
    to = f" to {row.dst_filepath}" if row.dst_filepath is not None else ""
    return f"{Type(row.type).name} {row.src_filepath}{to}"
