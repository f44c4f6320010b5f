"""Operators' pages at /admin/: look at runs, attempts, events and nodes; superusers keep tenants and tokens.

Read-only where the engine writes. Nothing here counts or sorts a whole table, and no secret is shown: values
of environments are masked, tokens have none. Must not import families.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from workers import addresses, identity, limits, policy, retention_policy, services, tenancy, usage
from workers.callbacks import operations
from workers.errors import EngineError
from workers.models import (
    Attempt,
    AuditEntry,
    Callback,
    CallbackAttempt,
    Deliverer,
    DisabledUrl,
    Membership,
    Node,
    Registry,
    Run,
    RunEvent,
    Tenant,
    Token,
)

T = TypeVar("T")

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    AnyAdmin = admin.ModelAdmin[Any]
    MembershipTable = admin.TabularInline[Membership, Tenant]
    TenantForm = forms.ModelForm[Tenant]
else:
    AnyAdmin = admin.ModelAdmin
    MembershipTable = admin.TabularInline
    TenantForm = forms.ModelForm

#: A list says how many there are up to here; counting on would read the whole table.
COUNTED: int = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # takes no parameter at run time
    """Counts no further than ``COUNTED``: what lies beyond is found by filters, not by turning pages."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: COUNTED + 1].count()


class ReadOnly(AnyAdmin):
    """What the engine writes: shown, never changed."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-pk",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A number is an id, anything else a whole name: both need no scan of what does not match."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.isascii() and term.isdigit() and len(term) <= 18:
            return queryset.filter(pk=int(term)), False
        return queryset.filter(name=term), False


class FamilyFilter(admin.SimpleListFilter):
    """The families of the settings: asking the table for its families would read all of it."""

    title = "family"
    parameter_name = "family"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in settings.GANTRY_FAMILIES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(family=self.value()) if self.value() else queryset


def _shown(uri: str) -> str:
    """An address without user name, password and query, which may be secrets."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


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

    @admin.display(description="Why is it there")
    def why(self, run: Run) -> str | SafeString:
        """The engine's own explanation."""
        try:
            told: Any = services.explain(None, run.pk)
        except EngineError as error:
            return error.message
        lines = [(item["message"], item["remedy"] or "nothing to do") for item in told["reasons"]]
        if told["position"]:
            lines.append((f"{told['position']} runs of its tenant are before it", "wait"))
        return format_html_join("", "{} &mdash; <em>{}</em><br>", lines)

    @admin.display(description="Output")
    def log(self, run: Run) -> SafeString:
        """The end of what it wrote."""
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
            spec["uris"] = [_shown(str(uri)) for uri in spec["uris"]]
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
            "{} {} &rarr; {} {} by {}<br>",
            (
                (row.at.isoformat(" "), row.from_state or "-", row.to_state, row.reason, row.by)
                for row in rows
            ),
        )


@admin.register(Node)
class NodeAdmin(ReadOnly):
    """Machines and what is reserved on them. Draining and removing: /api/v1/nodes."""

    list_display = (
        "name",
        "mode",
        "cpus",
        "memory",
        "slots_used",
        "runtimes",
        "heartbeat_at",
        "trouble",
        "version",
    )
    ordering = ("name",)
    exclude = ("instance", "reserved_for")

    @admin.display(description="CPUs used")
    def cpus(self, node: Node) -> str:
        return f"{node.cpu_m_used / 1000:g} of {node.cpu_m_total / 1000:g}"

    @admin.display(description="MiB used")
    def memory(self, node: Node) -> str:
        return f"{node.mem_mb_used} of {node.mem_mb_total}"


class Replayers(ReadOnly):
    """What superusers may act on from the list."""

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Superusers only."""
        return bool(getattr(request.user, "is_superuser", False))


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
        lines = ((item.at.isoformat(" "), item.status or "-", item.error, item.ms) for item in found)
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


def shown_url(url: str) -> str:
    """A URL without what may be a secret in it."""
    try:
        return addresses.parse(url, credentials=True).shown
    except EngineError:
        pass
    # One that the guard refuses; the attempts say why.
    scheme, colon, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return f"{scheme}://{host}/..." if colon and host else "(not a URL)"


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
    """The tenant's users."""

    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


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
class TenantAdmin(AnyAdmin):
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


@admin.register(Token)
class TokenAdmin(ReadOnly):
    """Credentials without their values. They are made by their users or by manage.py create_token."""

    list_display = ("id", "user", "name", "prefix", "scopes", "created_at", "expires_at", "revoked_at")
    list_select_related = ("user",)
    search_fields = ("name",)
    exclude = ("digest",)
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Superusers only."""
        return bool(getattr(request.user, "is_superuser", False))

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[Token]) -> None:
        for token_id in chosen.values_list("pk", flat=True)[:1000]:
            tenancy.revoke_token(token_id)
        self.message_user(request, "Revoked. API processes notice it within a few seconds.")


class FixedFilter(admin.SimpleListFilter):
    """A filter whose values are known: asking the table for them would read all of it."""

    values: tuple[str, ...] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in self.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class MethodFilter(FixedFilter):
    title, parameter_name = "method", "method"
    values = ("POST", "PUT", "PATCH", "DELETE")


class ViaFilter(FixedFilter):
    title, parameter_name = "credential", "via"
    values = ("token", "basic", "session", "network")


@admin.register(AuditEntry)
class AuditAdmin(ReadOnly):
    """Who changed what. Append only: nobody changes or deletes an entry here."""

    list_display = ("when", "user_name", "tenant_name", "method", "route", "things", "status", "peer")
    list_filter = (MethodFilter, ViaFilter)
    search_fields = ("user_name",)
    search_help_text = "An entry's number, or a whole user name"
    fields = ("id", *list_display, "via", "token_prefix", "request_id")
    readonly_fields = fields

    @admin.display(description="at", ordering="-pk")
    def when(self, entry: AuditEntry) -> str:
        """To the second, in UTC."""
        return entry.at.strftime("%Y-%m-%d %H:%M:%S")

    @admin.display(description="about")
    def things(self, entry: AuditEntry) -> str:
        """Names and ids of what the call was about."""
        return ", ".join(f"{name} {value}" for name, value in entry.about.items()) or "-"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term or (term.isascii() and term.isdigit()):
            return super().get_search_results(request, queryset, term)
        return queryset.filter(user_name=term), False


admin.site.site_header = admin.site.site_title = "Gantry"
admin.site.index_title = "Operators' pages"
admin.site.site_url = "/api/docs/"
# Rights come from being a superuser, from memberships and from tokens' scopes: groups would only mislead.
if admin.site.is_registered(Group):
    admin.site.unregister(Group)
