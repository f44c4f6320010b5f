"""Operators look at tasks here; they change nothing: the engine is the only writer of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest

from tasks_api.models import Task

if TYPE_CHECKING:  # Django's classes take no parameter at run time
    ModelAdmin = admin.ModelAdmin[Task]
else:
    ModelAdmin = admin.ModelAdmin


@admin.register(Task)
class TaskAdmin(ModelAdmin):
    """A read-only list. The spec is not shown: its environment may hold secrets."""

    list_display = ("id", "name", "tenant", "state", "reason", "node", "attempt", "created_at", "finished_at")
    list_filter = ("state", "reason")
    list_select_related = ("tenant", "node")
    search_fields = ("=id", "name")
    show_full_result_count = False
    exclude = ("spec",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Task | None = None) -> bool:
        return False
