"""Who may do what and who did what: tokens, without their values, and the audit log.

Must not import families.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from workers.admin.pages import FixedFilter, ReadOnly
from workers.models import AuditEntry, Token
from workers.tenants import tenancy


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
    def when(self, entry: AuditEntry) -> datetime:
        """Sorts by the key: the column itself has no index."""
        return entry.at

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
