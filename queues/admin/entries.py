"""Operators look at queues here, in their order; they change nothing: the services are the only writers.

Nothing here counts or sorts a whole table without an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from queues.entries.explain import explain
from queues.models import Entry, Queue, WaitingClass
from workers.admin import ReadOnly, shown_url
from workers.admin.pages import FixedFilter


class StatusFilter(FixedFilter):
    """One status at a time, what waits unless another one is chosen: each has its order and its index."""

    title, parameter_name = "status", "status"
    values = tuple(Entry.Status.values)

    def choices(self, changelist: Any) -> Iterator[Any]:
        for value in self.values:
            yield {
                "selected": value == (self.value() or Entry.Status.QUEUED),
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": value,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        status = _status(request)
        if status is None:
            return queryset
        return queryset.filter(status=status, ended_at__isnull=status in _NOT_ENDED)


_NOT_ENDED: Final = (Entry.Status.QUEUED, Entry.Status.RUNNING)
#: As the indexes of the three kinds have it.
_ORDERS: Final = {
    Entry.Status.QUEUED: ("queue_id", "priority", "tie"),
    Entry.Status.RUNNING: ("queue_id", "admitted_at", "id"),
}
_NEWEST: Final = ("-queue_id", "-ended_at", "-id")


def _status(request: HttpRequest) -> str | None:
    """Which the page is of; None: of all, which is what a search is in."""
    chosen = request.GET.get("status")
    if chosen in Entry.Status.values:
        return chosen
    return None if request.GET.get("q", "").strip() else Entry.Status.QUEUED.value


class InOrder(ChangeList):
    """In the order of the page and no other: any other would sort the table."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return list(self.model_admin.get_ordering(request))


class TypeFilter(admin.SimpleListFilter):
    """The types that there are queues of: few, unlike entries."""

    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = Queue.objects.order_by("type").values_list("type", flat=True).distinct()[:100]
        return [(kind, kind) for kind in rows]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        # Of one queue the index has the order; of several tenants' queues they are sorted.
        ids = list(Queue.objects.filter(type=self.value()).values_list("pk", flat=True)[:2])
        return (
            queryset.filter(queue_id=ids[0]) if len(ids) == 1 else queryset.filter(queue__type=self.value())
        )


@admin.register(Entry)
class EntryAdmin(ReadOnly):
    """Every request of every tenant: what waits, each queue in its order; what runs by admission; what has
    ended, the newest first."""

    list_display = ("request_id", "type", "tenant", "owner_id", "status", "priority", "created_at")
    list_filter = (StatusFilter, TypeFilter)
    list_select_related = ("queue__tenant",)
    sortable_by = ()
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

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """What matters to those that the page is of: more than fits on it is not seen."""
        status = _status(request)
        if status is None:
            return self.list_display
        about = {
            Entry.Status.QUEUED: ("priority", "reserved", "created_at"),
            Entry.Status.RUNNING: ("aggregate", "created_at", "admitted_at"),
        }.get(Entry.Status(status), ("aggregate", "admitted_at", "ended_at"))
        return ("request_id", "type", "tenant", "owner_id", *about)

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        status = _status(request)
        return ("-id",) if status is None else _ORDERS.get(Entry.Status(status), _NEWEST)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return InOrder

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
