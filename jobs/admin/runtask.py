"""Operators look at runtask's jobs and at the job definitions here; they change nothing.

No credential is shown: a stored specification has none. Nothing here counts or sorts a whole table.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobs.models import RuntaskDefinition, RuntaskJob
from jobs.runtask import wire
from jobs.runtask.catalogue.folder import catalogue
from workers import services
from workers.admin import ReadOnly
from workers.admin.pages import FixedFilter
from workers.models import Run
from workers.storage.opening import path_of
from workers.vocabulary.errors import EngineError
from workers.vocabulary.states import State, is_final

#: Most of a command that a page shows, in characters.
_SHOWN: Final = 2000


class StateFilter(FixedFilter):
    """By the run's state."""

    title = "state"
    parameter_name = "run__state"
    values = tuple(State.values)


@admin.register(RuntaskJob)
class RuntaskJobAdmin(ReadOnly):
    """Jobs of every tenant: what runs, what waits, and why."""

    list_display = ("id", "what_runs", "tenant", "state", "message", "node", "created_at")
    list_filter = (StateFilter, "tenant")
    list_select_related = ("tenant", "run", "run__node")
    search_fields = ("definition",)
    search_help_text = "A job's number, or the whole name of its definition"
    fields = (
        *("id", "tenant", "what_runs", "why", "state", "message", "run_link", "account", "inputs", "outputs"),
        *("command", "created_at"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[RuntaskJob]:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RuntaskJob], search_term: str
    ) -> tuple[QuerySet[RuntaskJob], bool]:
        term = search_term.strip()
        if not term or (term.isascii() and term.isdigit()):
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(definition=term), False

    @admin.display(description="Runs")
    def what_runs(self, job: RuntaskJob) -> str:
        """Its definition, or that it is a command line."""
        return job.definition or _run(job).name

    @admin.display(description="State")
    def state(self, job: RuntaskJob) -> str:
        run = _run(job)
        return f"{run.state} {run.reason}".strip()

    @admin.display(description="Message")
    def message(self, job: RuntaskJob) -> str:
        run = _run(job)
        if wire.failed(run.state):
            return wire.trouble(run.state, run.reason, run.message)
        return run.message or "-"

    @admin.display(description="Node")
    def node(self, job: RuntaskJob) -> str:
        found = _run(job).node
        return found.name if found is not None else "-"

    @admin.display(description="Why it is where it is")
    def why(self, job: RuntaskJob) -> SafeString | str:
        """The engine's own explanation, while it has not ended."""
        run = _run(job)
        if is_final(run.state):
            return "It has ended"
        try:
            told: Any = services.explain(None, run.pk)
        except EngineError as error:
            return error.message
        lines = ((item["message"], item["remedy"] or "nothing to do") for item in told["reasons"])
        return format_html_join("", "{} &mdash; <em>{}</em><br>", lines)

    @admin.display(description="Run")
    def run_link(self, job: RuntaskJob) -> SafeString:
        """Attempts, events and output are the run's."""
        return format_html('<a href="/admin/workers/run/{}/change/">run {}</a>', job.run_id, job.run_id)

    @admin.display(description="Swift")
    def account(self, job: RuntaskJob) -> str:
        """Where and as whom, without the key."""
        stores = _run(job).spec.get("stores") or [{}]
        return (
            f"{stores[0].get('user', '')} of {stores[0].get('tenant', '')} at {stores[0].get('auth_url', '')}"
        )

    @admin.display(description="Fetches")
    def inputs(self, job: RuntaskJob) -> SafeString | str:
        return _places(job, "inputs")

    @admin.display(description="Stores")
    def outputs(self, job: RuntaskJob) -> SafeString | str:
        return _places(job, "outputs")

    @admin.display(description="Command")
    def command(self, job: RuntaskJob) -> SafeString:
        """Its beginning; parameters of a definition are not shown."""
        spec = _run(job).spec
        argv = spec.get("argv") or spec.get("args") or ["", "", ""]
        return format_html("<pre>{}</pre>", str(argv[2])[:_SHOWN])


def _run(job: RuntaskJob) -> Run:
    """A stored job has its run; a type checker cannot know."""
    assert job.run is not None  # noqa: S101
    return job.run


def _places(job: RuntaskJob, key: str) -> SafeString | str:
    found = _run(job).spec.get(key) or []
    return format_html_join("", "{}<br>", ((path_of(str(item["url"])),) for item in found)) or "-"


@admin.register(RuntaskDefinition)
class RuntaskDefinitionAdmin(ReadOnly):
    """The job definitions in GANTRY_RUNTASK_DEFINITIONS, the broken ones with what is wrong."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One page for all: files, not rows."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = catalogue()
        context = {
            **self.admin_site.each_context(request),
            "title": "Job definitions of runtask",
            "opts": self.opts,
            "found": found,
            "definitions": sorted(found.definitions.values(), key=lambda item: item.name),
            "broken": sorted(found.broken.items()),
        }
        return TemplateResponse(request, "jobs/definitions.html", context)
