"""Runs of every tenant: what they execute, where they are and why.

Must not import families.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from workers import services
from workers.admin.pages import FamilyFilter, ReadOnly, instant, shown_uri
from workers.models import Attempt, Run, RunEvent
from workers.scheduling.explain import before
from workers.tenants import retention_policy
from workers.vocabulary.errors import EngineError


@admin.register(Run)
class RunAdmin(ReadOnly):
    """Every run of every tenant."""

    list_display = ("id", "family", "name", "tenant", "state", "reason", "node", "attempt", "created_at")
    list_filter = ("state", FamilyFilter, "tenant")
    list_select_related = ("tenant", "node")
    search_fields = ("name",)
    search_help_text = "A run's number, or its whole name"
    fields = (
        *(
            "id",
            "tenant",
            "family",
            "kind",
            "name",
            "why",
            "state",
            "reason",
            "message",
            "exit_code",
            "log",
            "node",
        ),
        *("attempt", "priority", "retries_left", "timeout_s", "not_before", "created_at", "expires_at"),
        *("started_at", "finished_at", "cancel_requested_at", "cancelled_by_operator", "callback", "what"),
        *("attempts", "events"),
    )
    readonly_fields = fields

    @admin.display(description="Why it is where it is")
    def why(self, run: Run) -> str | SafeString:
        """The engine's own explanation."""
        try:
            told: Any = services.explain(None, run.pk)
        except EngineError as error:
            return error.message
        lines = [(item["message"], item["remedy"] or "nothing to do") for item in told["reasons"]]
        if told["position"]:
            lines.append((before(told["position"], " of its tenant"), "wait"))
        return format_html_join("", "{} &mdash; <em>{}</em><br>", lines)

    @admin.display(description="Output")
    def log(self, run: Run) -> SafeString:
        """The end of what it wrote."""
        if run.log_pruned_at is not None:
            return format_html("{}", retention_policy.deleted_lines([run.pk])[run.pk])
        return format_html(
            '<a href="/api/v1/runs/{}/logs?all_tenants=1&amp;tail=65536">the last 64 KiB</a>', run.pk
        )

    @admin.display(description="Callback")
    def callback(self, run: Run) -> str:
        """The receiver's host only: a URL may carry a password."""
        return urlsplit(run.callback_url).hostname or "-"

    @admin.display(description="What it executes")
    def what(self, run: Run) -> SafeString:
        """The spec; values of its environment are masked."""
        spec = dict(run.spec)
        if isinstance(spec.get("env"), dict):
            spec["env"] = dict.fromkeys(spec["env"], "***")
        if isinstance(spec.get("uris"), list):
            spec["uris"] = [shown_uri(str(uri)) for uri in spec["uris"]]
        return format_html("<pre>{}</pre>", json.dumps(spec, indent=2, ensure_ascii=False))

    @admin.display(description="Attempts")
    def attempts(self, run: Run) -> SafeString:
        """The newest 50."""
        rows = Attempt.objects.filter(run=run).select_related("node").order_by("-number")[:50]
        return format_html_join(
            "",
            "{}: {} {} {} on {}<br>",
            ((row.number, row.state, row.reason, row.message, row.node.name) for row in rows),
        )

    @admin.display(description="Events")
    def events(self, run: Run) -> SafeString:
        """The newest 50."""
        rows = RunEvent.objects.filter(run=run).order_by("-pk")[:50]
        return format_html_join(
            "",
            "{} {} by {}<br>",
            ((instant(row.at), _told(row), row.by) for row in rows),
        )


def _told(row: RunEvent) -> str | SafeString:
    """What was done, or from which state to which it went."""
    return row.note or format_html("{} &rarr; {} {}", row.from_state or "-", row.to_state, row.reason)
