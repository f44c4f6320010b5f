"""Operators look at queues here, in their order; they change nothing: the services are the only writers.

Nothing here counts or sorts a whole table without an index.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from queues.entries.explain import explain
from queues.models import Entry, Queue, WaitingClass
from workers.admin import ReadOnly, shown_url
from workers.admin.pages import FixedFilter


class StatusFilter(FixedFilter):
    title, parameter_name = "status", "status"
    values = tuple(Entry.Status.values)


class TypeFilter(admin.SimpleListFilter):
    """The types that there are queues of: few, unlike entries."""

    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = Queue.objects.order_by("type").values_list("type", flat=True).distinct()[:100]
        return [(kind, kind) for kind in rows]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(queue__type=self.value()) if self.value() else queryset


@admin.register(Entry)
class EntryAdmin(ReadOnly):
    """Every request of every tenant, each queue in its order."""

    list_display = (
        *("id", "request_id", "type", "tenant", "owner_id", "status", "priority"),
        *("aggregate", "created_at", "admitted_at", "ended_at"),
    )
    list_filter = (TypeFilter, StatusFilter)
    list_select_related = ("queue__tenant",)
    search_fields = ("request_id",)
    search_help_text = "An entry's number, or its whole request_id"
    fields = (
        *("id", "request_id", "type", "tenant", "owner_id", "status", "message", "why", "priority", "data"),
        *("receiver", "aggregate", "reserved", "reserved_at", "told_at", "hold_ends_at"),
        *("created_at", "updated_at", "admitted_at", "ended_at"),
    )
    readonly_fields = fields

    @admin.display(description="Type")
    def type(self, entry: Entry) -> str:
        """Of its queue."""
        return entry.queue.type

    @admin.display(description="Tenant")
    def tenant(self, entry: Entry) -> str:
        """Of its queue."""
        return entry.queue.tenant.name

    @admin.display(description="Why it waits")
    def why(self, entry: Entry) -> str:
        """As its client is told; the page of one entry only."""
        if entry.status != Entry.Status.QUEUED:
            return "-"
        found = explain(entry.queue.tenant_id, entry.queue.type, entry.request_id)
        return " ".join(f"{each['message']}. What helps: {each['remedy']}." for each in found["reasons"])

    @admin.display(description="Callback")
    def receiver(self, entry: Entry) -> str:
        """Without what may be a secret in it."""
        return shown_url(entry.callback) if entry.deliverable else "(no http or https URL)"

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return ("queue_id", "priority", "tie")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        return super().get_queryset(request).select_related("queue__tenant")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or (term.isascii() and term.isdigit() and queryset.filter(pk=int(term[:18])).exists()):
            return super().get_search_results(request, queryset, term)
        return queryset.filter(request_id=term), False


@admin.register(Queue)
class QueueAdmin(ReadOnly):
    """A tenant's queue of a type."""

    list_display = ("id", "type", "tenant", "highest")
    list_select_related = ("tenant",)
    search_fields = ("type",)
    search_help_text = "A queue's number, or its whole type"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or (term.isascii() and term.isdigit()):
            return super().get_search_results(request, queryset, term)
        return queryset.filter(type=term), False


@admin.register(WaitingClass)
class WaitingClassAdmin(ReadOnly):
    """Entries that are the same to admission: owner, size and bound aggregate."""

    list_display = ("id", "type", "tenant", "owner_id", "waiting", "aggregate", "needs")
    list_select_related = ("queue__tenant",)
    list_filter = (TypeFilter,)

    @admin.display(description="Type")
    def type(self, row: WaitingClass) -> str:
        """Of its queue."""
        return row.queue.type

    @admin.display(description="Tenant")
    def tenant(self, row: WaitingClass) -> str:
        """Of its queue."""
        return row.queue.tenant.name
