"""Operators' pages for capacity: aggregates with what is used of them, and policies.

What is changed here goes through ``queues.operators.services``, as the API's calls do: type's lock, ring. The
audit log has it as every changing call of a page. Must not import views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin
from django.contrib.postgres.expressions import ArraySubquery
from django.core.exceptions import ValidationError
from django.db.models import Count, F, Model, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import JSONObject
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from queues.models import Aggregate, Host, HostResource, TypePolicy
from queues.needs import shown
from queues.operators import parsing, services
from queues.operators.parsing import PolicyRequest
from workers.admin import ReadOnly
from workers.vocabulary.errors import EngineError

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    PolicyFormBase = forms.ModelForm[TypePolicy]
else:
    PolicyFormBase = forms.ModelForm

#: Hosts on the page of an aggregate; the API shows all.
_HOSTS_SHOWN: Final = 500


@admin.register(Aggregate)
class AggregateAdmin(ReadOnly):
    """What is declared and what is used of it. Declared by POST /api/v1/queues/{type}/pools."""

    list_display = ("name", "type", "there", "host_count", "in_use")
    list_filter = ("type",)
    search_help_text = "An aggregate's number, or its whole name"
    search_fields = ("name",)
    fields = ("name", "type", "there", "users", "in_use", "hosts")
    readonly_fields = fields

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        return ("type", "name")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Aggregate]:
        """With the sums of each, so that a page of the list is one query."""
        sums = (
            HostResource.objects.filter(host__aggregate=OuterRef("pk"))
            .values("name")
            .annotate(all=Sum("total"), used=Sum(F("outside") + F("held")))
            .filter(Q(all__gt=0) | Q(used__gt=0))
            .order_by("name")
            .values(row=JSONObject(name="name", total="all", used="used"))
        )
        count = (
            Host.objects.filter(aggregate=OuterRef("pk"), removed_at=None)
            .order_by()
            .values("aggregate")
            .annotate(n=Count("*"))
            .values("n")
        )
        rows: QuerySet[Aggregate] = super().get_queryset(request)
        return rows.annotate(sums=ArraySubquery(sums), host_count=count)

    @admin.display(description="State", ordering="removed_at")
    def there(self, row: Aggregate) -> str:
        return "declared" if row.removed_at is None else "removed"

    @admin.display(description="Hosts")
    def host_count(self, row: Any) -> int:
        return row.host_count or 0

    @admin.display(description="Used of all")
    def in_use(self, row: Any) -> str:
        """Resource by resource."""
        told = (f"{item['name']} {shown(item['used'])} of {shown(item['total'])}" for item in row.sums)
        return ", ".join(told) or "nothing"

    @admin.display(description="Tenants that may use it")
    def users(self, row: Aggregate) -> str:
        return ", ".join(row.tenants.order_by("name").values_list("name", flat=True)) or "all"

    @admin.display(description="Hosts")
    def hosts(self, row: Aggregate) -> SafeString:
        """Each resource of the first hosts by name."""
        found = HostResource.objects.filter(host__aggregate=row, host__name__in=self._first(row))
        used = found.filter(Q(total__gt=0) | Q(outside__gt=0) | Q(held__gt=0)).select_related("host")
        lines = (
            (
                item.host.name,
                item.name,
                shown(item.total),
                shown(item.outside + item.held),
                shown(max(0, item.total - item.outside - item.held)),
                "" if item.host.removed_at is None else "removed",
            )
            for item in used.order_by("host__name", "name")
        )
        cells = format_html_join("", "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>", lines)
        return format_html(
            "<table><thead><tr><th>Host<th>Resource<th>Total<th>Used<th>Free<th></tr></thead>"
            "<tbody>{}</tbody></table><p>At most {} hosts are shown; all: "
            '<a href="/api/v1/queues/{}/capacity">/api/v1/queues/{}/capacity</a></p>',
            *(cells, _HOSTS_SHOWN, row.type, row.type),
        )

    def _first(self, row: Aggregate) -> list[str]:
        names = Host.objects.filter(aggregate=row).order_by("name").values_list("name", flat=True)
        return list(names[:_HOSTS_SHOWN])


class PolicyForm(PolicyFormBase):
    """Refuses a type that no queue can have."""

    def clean_type(self) -> str:
        try:
            return parsing.checked_type(self.cleaned_data["type"])
        except EngineError as error:
            raise ValidationError(error.message) from None


@admin.register(TypePolicy)
class PolicyAdmin(ReadOnly):
    """How each type is admitted. A type that is not here is strict, with declared pools."""

    form = PolicyForm
    list_display = ("type", "mode", "provider", "heard_at", "trouble")
    ordering = ("type",)
    fields = ("type", "mode", "provider", "heard_at", "trouble")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        fixed = ("provider", "heard_at", "trouble")
        return fixed if obj is None else ("type", *fixed)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def save_model(self, request: HttpRequest, obj: TypePolicy, form: Any, change: bool) -> None:
        """As PUT /api/v1/queues/{type}/policy."""
        obj.pk = services.set_policy(obj.type, PolicyRequest(obj.mode, None, {})).pk

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(type=term) if term else queryset), False


def superuser(request: HttpRequest) -> bool:
    """Who may change what operators decide."""
    return bool(getattr(request.user, "is_superuser", False))
