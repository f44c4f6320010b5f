"""Callbacks and the processes that deliver them; superusers replay callbacks and enable URLs.

Must not import families.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from workers.admin.pages import FamilyFilter, ReadOnly, Replayers, instant, shown_url
from workers.callbacks import operations
from workers.models import Callback, CallbackAttempt, Deliverer, DisabledUrl
from workers.vocabulary.errors import EngineError


@admin.register(Callback)
class CallbackAdmin(Replayers):
    """What is owed to clients and what became of it. URLs without user name, password and query."""

    list_display = (
        "id",
        "tenant",
        "family",
        "owner_id",
        "event",
        "where",
        "state",
        "attempts_made",
        "next_at",
    )
    list_filter = ("state", FamilyFilter, "tenant")
    list_select_related = ("tenant",)
    search_help_text = "A callback's number"
    search_fields = ("id",)
    fields = (
        *("id", "tenant", "family", "owner_kind", "owner_id", "sequence", "event", "where", "state"),
        *("next_at", "attempts_made", "message_id", "created_at", "delivered_at", "tries"),
    )
    readonly_fields = fields
    actions = ("replay",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        number = int(term) if term.isascii() and term.isdigit() and len(term) <= 18 else 0
        return (queryset.filter(pk=number) if term else queryset), False

    @admin.display(description="URL")
    def where(self, row: Callback) -> str:
        return shown_url(row.url)

    @admin.display(description="Attempts")
    def tries(self, row: Callback) -> SafeString:
        """The newest 50."""
        found = CallbackAttempt.objects.filter(callback=row).order_by("-pk")[:50]
        lines = ((instant(item.at), item.status or "-", item.error, item.ms) for item in found)
        return format_html_join("", "{} {} {} ({} ms)<br>", lines)

    @admin.action(description="Send the chosen callbacks again", permissions=["replay"])
    def replay(self, request: HttpRequest, chosen: QuerySet[Callback]) -> None:
        done, refused = 0, ""
        for callback_id in chosen.values_list("pk", flat=True)[:1000]:
            try:
                operations.replay(None, callback_id)
                done += 1
            except EngineError as error:
                refused = error.message
        self.message_user(request, f"{done} are due again. {refused}".strip())


@admin.register(DisabledUrl)
class DisabledUrlAdmin(Replayers):
    """URLs that answered 410: nothing goes there."""

    list_display = ("id", "tenant", "where", "at")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)
    fields = readonly_fields = ("tenant", "where", "at")
    actions = ("enable",)

    @admin.display(description="URL")
    def where(self, row: DisabledUrl) -> str:
        return shown_url(row.url)

    @admin.action(description="Enable the chosen URLs again", permissions=["replay"])
    def enable(self, request: HttpRequest, chosen: QuerySet[DisabledUrl]) -> None:
        for disabled_id in chosen.values_list("pk", flat=True)[:1000]:
            operations.enable(None, disabled_id)
        self.message_user(request, "Callbacks go there again. Replay what was disabled meanwhile.")


@admin.register(Deliverer)
class DelivererAdmin(ReadOnly):
    """Processes that deliver callbacks."""

    list_display = ("name", "heartbeat_at", "here", "delivered", "failed", "dead", "version")
    ordering = ("name",)

    @admin.display(description="is")
    def here(self, row: Deliverer) -> str:
        """A cross for "not detached" would look like trouble."""
        if row.detached:
            return "stopped in good order"
        silent = (timezone.now() - row.heartbeat_at).total_seconds() > settings.GANTRY_LEASE_S
        return "silent" if silent else "at work"
