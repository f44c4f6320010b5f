"""Operators' page of what owners hold and may hold.

What is changed here goes through ``queues.operators.services``, as the API's calls do: type's lock, ring. The
audit log has it as every changing call of a page. Must not import views.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from queues.admin.capacity import superuser
from queues.models import OwnerHolding, Queue
from queues.needs import shown
from queues.operators import parsing, services
from workers.admin import ReadOnly
from workers.models import Tenant
from workers.vocabulary.errors import EngineError

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    QuotaFormBase = forms.ModelForm[OwnerHolding]
else:
    QuotaFormBase = forms.ModelForm

_AMOUNT_HELP = "A number, or one like 500m or 1Gi, in the unit of the type's requests"


class QuotaForm(QuotaFormBase):
    """A quota as people write it."""

    amount = forms.CharField(required=False, label="Quota", help_text=f"{_AMOUNT_HELP}; empty = none.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.quota is not None:
            self.fields["amount"].initial = shown(self.instance.quota)

    def clean_amount(self) -> int | None:
        row = self.instance
        try:
            return parsing.parse_one_quota(row.queue.type, row.resource, self.cleaned_data["amount"])
        except EngineError as error:
            raise ValidationError(error.message) from None


class NewQuotaForm(QuotaFormBase):
    """A quota of an owner that has none of that resource; it need not have asked for anything yet."""

    tenant = forms.ModelChoiceField(Tenant.objects.order_by("name"), help_text="Quotas are of one tenant.")
    kind = forms.CharField(label="Type", max_length=128, help_text="Of queue: vm, kube, or another word.")
    owner_id = forms.CharField(
        label="Owner id", max_length=parsing.LONGEST, strip=False, help_text="As its requests have it."
    )
    resource = forms.CharField(
        max_length=parsing.LONGEST_RESOURCE, help_text="Of vm: VCPU, Memory (MB) or Disk (GB)."
    )
    amount = forms.CharField(label="Quota", help_text=f"{_AMOUNT_HELP}.")

    class Meta:
        model = OwnerHolding
        fields = ("owner_id", "resource")

    def clean_kind(self) -> str:
        return str(_checked(parsing.checked_type, self.cleaned_data["kind"]))

    def clean_owner_id(self) -> str:
        return str(_checked(parsing.checked_owner, self.cleaned_data["owner_id"]))

    def clean(self) -> None:
        """What hangs on more than one field: each complaint at the field that has to change."""
        given, found = self.cleaned_data, None
        if self.errors:
            return
        for field, amount in (("resource", "0"), ("amount", given["amount"])):
            try:
                found = parsing.parse_one_quota(given["kind"], given["resource"], amount)
            except EngineError as error:
                self.add_error(field, error.message)
                return
        row = OwnerHolding.objects.filter(
            queue__tenant=given["tenant"],
            queue__type=given["kind"],
            owner_id=given["owner_id"],
            resource=given["resource"],
        ).first()
        if row is not None and row.quota is not None:
            self.add_error(
                "amount",
                f"{row.owner_id} has a quota of {shown(row.quota)} {row.resource} already: "
                "find it in the list by the owner's id, and change it there",
            )
        given["amount"] = found


def _checked(check: Any, text: str) -> Any:
    try:
        return check(text)
    except EngineError as error:
        raise ValidationError(error.message) from None


@admin.register(OwnerHolding)
class QuotaAdmin(ReadOnly):
    """What owners hold and may hold, as GET /api/v1/queues/{type}/quotas tells it."""

    form = QuotaForm
    list_display = ("owner_id", "tenant", "kind", "resource", "has", "may_have", "changed_at")
    list_select_related = ("queue__tenant",)
    search_help_text = "An owner's whole id"
    search_fields = ("owner_id",)
    fields = ("owner_id", "tenant", "kind", "resource", "has", "amount")
    readonly_fields = ("owner_id", "tenant", "kind", "resource", "has")

    @admin.display(description="Tenant")
    def tenant(self, row: OwnerHolding) -> str:
        return row.queue.tenant.name

    @admin.display(description="Type")
    def kind(self, row: OwnerHolding) -> str:
        return row.queue.type

    @admin.display(description="Held", ordering="held")
    def has(self, row: OwnerHolding) -> str:
        return str(shown(row.held))

    @admin.display(description="Quota", ordering="quota")
    def may_have(self, row: OwnerHolding) -> str:
        return "none" if row.quota is None else str(shown(row.quota))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(
            request, obj, change, **({"form": NewQuotaForm} if obj is None else {}), **kwargs
        )

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("tenant", "kind", "owner_id", "resource", "amount") if obj is None else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return () if obj is None else self.readonly_fields

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def save_model(self, request: HttpRequest, obj: OwnerHolding, form: Any, change: bool) -> None:
        """As PUT /api/v1/queues/{type}/quotas/{owner_id}, for this resource alone."""
        given = form.cleaned_data
        queue = obj.queue if change else Queue(tenant=given["tenant"], type=given["kind"])
        services.set_one_quota(queue, obj.owner_id, obj.resource, given["amount"])
        if not change:
            # What it is about, for the page's message and links.
            found = OwnerHolding.objects.filter(queue__tenant=queue.tenant, queue__type=queue.type)
            obj.pk = found.get(owner_id=obj.owner_id, resource=obj.resource).pk

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(owner_id=term) if term else queryset), False
