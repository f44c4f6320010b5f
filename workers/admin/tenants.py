"""Tenants with their members, rights and limits, and what they show private registries.

Must not import families.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from workers.admin.pages import OnlyDeclared, ReadOnly, superuser
from workers.models import Membership, Registry, Tenant
from workers.tenants import identity, limits, policy, retention_policy, usage
from workers.vocabulary.errors import EngineError

T = TypeVar("T")

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    MembershipTable = admin.TabularInline[Membership, Tenant]
    TenantForm = forms.ModelForm[Tenant]
else:
    MembershipTable = admin.TabularInline
    TenantForm = forms.ModelForm


class PolicyForm(TenantForm):
    """Refuses a policy, limits or times that the engine would not understand."""

    def clean_policy(self) -> dict[str, Any]:
        return self._checked("policy", policy.checked)

    def clean_limits(self) -> dict[str, int]:
        return self._checked("limits", limits.checked)

    def clean_retention(self) -> dict[str, Any]:
        return self._checked("retention", retention_policy.checked)

    def _checked(self, name: str, check: Callable[[object], T]) -> T:
        try:
            return check(self.cleaned_data.get(name) or {})
        except EngineError as error:
            raise ValidationError(error.message) from None


class MemberTable(MembershipTable):
    """The tenant's users. Superusers put them in and out: a membership may be a superuser's."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return superuser(request)


#: What the fields of a tenant that are JSON may hold.
_HELP = {
    "policy": 'What is opened or closed, e.g. {"commands": false}. Keys: '
    + ", ".join((*policy.KEYS, *policy.LISTS)),
    "limits": 'Other limits than the installation\'s, 0 = none, e.g. {"waiting_runs": 500}. Keys: '
    + ", ".join(limits.KEYS),
    "retention": "Days that ended runs and their output are kept, 0 = for ever, e.g. "
    '{"runs_d": 30, "families": {"tasks": {"logs_d": 3}}}',
}


@admin.register(Tenant)
class TenantAdmin(OnlyDeclared):
    """Who owns work. A tenant is switched off, not deleted: its runs belong to it."""

    form = PolicyForm
    list_display = ("name", "title", "active", "trusted_with_worker_account", "created_at")
    search_fields = ("name", "title")
    inlines = (MemberTable,)
    fieldsets = (
        (None, {"fields": ("name", "title", "active", "trusted_with_worker_account")}),
        (
            "Limits and rights",
            {
                "fields": ("policy", "limits", "retention"),
                "description": "What is not named here is as the installation's settings say.",
            },
        ),
        ("Now and in the last 30 days", {"fields": ("standing", "used")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("name", "standing", "used") if obj is not None else ("standing", "used")

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name in _HELP and field is not None:
            field.help_text = _HELP[db_field.name]
            field.widget.attrs["rows"] = 3
        return field

    @admin.display(description="In use")
    def standing(self, tenant: Tenant) -> str:
        """How much of its limits it has in use."""
        if tenant._state.adding:
            return "-"
        now = usage.standing(tenant.pk)
        most = now.limits
        return (
            f"{now.waiting} waiting of {most.waiting_runs or 'any number'}, "
            f"{now.running} running of {most.running_runs or 'any number'}, "
            f"{most.requests_per_s or 'any number of'} requests a second"
        )

    @admin.display(description="Used")
    def used(self, tenant: Tenant) -> str | SafeString:
        """What ended in the last 30 days, by family."""
        today = timezone.now().date()
        rows = usage.report(tenant.pk, today - timedelta(days=29), today) if not tenant._state.adding else []
        if not rows:
            return "nothing"
        return format_html_join(
            "",
            "{}: {} succeeded, {} failed, {} cancelled; {} CPU hours, {} GiB hours, {} MiB of output<br>",
            (
                (
                    row.family,
                    row.runs["SUCCEEDED"],
                    row.runs["FAILED"],
                    row.runs["CANCELLED"],
                    f"{row.cpu_s / 3600:.2f}",
                    f"{row.mem_mb_s / 1024 / 3600:.2f}",
                    f"{row.log_bytes / 2**20:.1f}",
                )
                for row in rows
            ),
        )

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        identity.forget()


@admin.register(Registry)
class RegistryAdmin(ReadOnly):
    """What tenants show private registries, without passwords. Kept by the tenants: /api/v1/registries."""

    list_display = ("host", "tenant", "username", "updated_at")
    list_select_related = ("tenant",)
    exclude = ("secret",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().lower()
        return (queryset.filter(host=term) if term else queryset), False
