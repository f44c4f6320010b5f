"""What the operators' pages share: read-only lists that count and sort no whole table, and what is masked.

Must not import families.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from workers import addresses
from workers.vocabulary.errors import EngineError

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyAdmin = admin.ModelAdmin


#: A list says how many there are up to here; counting on would read the whole table.
COUNTED: int = 10_000
#: What Django's own filters of a field ask of it.
_FILTERS_ASK: Final = ("__exact", "__id__exact", "__isnull")


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # takes no parameter at run time
    """Counts no further than ``COUNTED``: what lies beyond is found by filters, not by turning pages."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: COUNTED + 1].count()


class OnlyDeclared(AnyAdmin):
    """Filters by what ``list_filter`` declares and by nothing else.

    Django allows every field of the model: ?spec__env__X__startswith= tells a masked value letter by letter.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        for item in self.list_filter:
            field = item[0] if isinstance(item, tuple | list) else item
            name = field if isinstance(field, str) else getattr(field, "parameter_name", "")
            if lookup == name or lookup in {f"{name}{end}" for end in _FILTERS_ASK}:
                return True
        return False


class ReadOnly(OnlyDeclared):
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


def superuser(request: HttpRequest) -> bool:
    """Does a superuser ask?"""
    return bool(getattr(request.user, "is_superuser", False))


class Replayers(ReadOnly):
    """What superusers may act on from the list."""

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Superusers only."""
        return superuser(request)


class FamilyFilter(admin.SimpleListFilter):
    """The families of the settings: asking the table for its families would read all of it."""

    title = "family"
    parameter_name = "family"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in settings.GANTRY_FAMILIES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(family=self.value()) if self.value() else queryset


class FixedFilter(admin.SimpleListFilter):
    """A filter whose values are known: asking the table for them would read all of it."""

    values: tuple[str, ...] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in self.values]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


def instant(at: datetime) -> str:
    """A moment of a story, to the millisecond, in UTC like all times here."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}"


def shown_uri(uri: str) -> str:
    """An address without user name, password and query, which may be secrets."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


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
