"""Operators look at tasks here; they change nothing: the engine is the only writer of a run."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from tasks_api.models import Task
from workers.admin import RunAdmin


@admin.register(Task)
class TaskAdmin(RunAdmin):
    """The runs of this family, as the engine's own page shows them."""

    list_display = ("id", "name", "tenant", "state", "reason", "node", "attempt", "created_at", "finished_at")

    def get_list_filter(self, request: HttpRequest) -> tuple[str, str]:
        return ("state", "tenant")
