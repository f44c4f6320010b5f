"""/api/v1/runs: every run of the tenant, whatever its family. Parse, one service call, render."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from workers import services
from workers.api.answers import ApiView, Page, answer, created, known_parameters, moment, root_of
from workers.api.callback_header import callback_header
from workers.api.runs import schema, shapes
from workers.api.runs.logs import log_response
from workers.models import Attempt, Run, RunEvent
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.states import State

_LIST: Final = (
    "family", "state", "kind", "node", "owner", "created_after", "created_before", "name",
    "limit", "cursor", "all_tenants",
)  # fmt: skip
#: Columns that a list shows; the spec and the counters stay in the database.
_SHOWN: Final = (
    "id", "family", "kind", "name", "owner_id", "state", "reason", "message", "priority", "attempt",
    "exit_code", "created_at", "started_at", "finished_at", "cancel_requested_at", "log_pruned_at",
    "tenant__name", "node__name",
)  # fmt: skip
#: Most attempts and events that a detail shows; the newest ones.
DETAIL_MOST: Final = 1000


def chosen(request: Request, runs: QuerySet[Run]) -> QuerySet[Run]:
    """``runs`` narrowed down by the request's filters."""
    given = request.query_params
    state = given.get("state")
    if state is not None:
        if state.upper() not in State.values:
            raise InvalidInput(
                f"state is {state[:40]!r}: it must be one of {', '.join(State.values)}", field="state"
            )
        runs = runs.filter(state=state.upper())
    for name, column in (("family", "family"), ("kind", "kind"), ("name", "name"), ("node", "node__name")):
        if name in given:
            runs = runs.filter(**{column: given[name]})
    owner = given.get("owner")
    if owner is not None:
        # A run that belongs to nothing larger is its own owner.
        itself = (
            Q(owner_id="", pk=int(owner)) if owner.isascii() and owner.isdigit() and len(owner) <= 18 else Q()
        )
        runs = runs.filter(Q(owner_id=owner) | itself if itself else Q(owner_id=owner))
    after, before = moment(request, "created_after"), moment(request, "created_before")
    if after is not None:
        runs = runs.filter(created_at__gte=after)
    if before is not None:
        runs = runs.filter(created_at__lt=before)
    return runs


class RunsView(ApiView):
    """/api/v1/runs"""

    @extend_schema(**schema.RUNS)
    def get(self, request: Request) -> HttpResponse:
        """The tenant's runs, the newest first."""
        known_parameters(request, _LIST)
        page, tenant_id = Page.of(request), self.tenant_id()
        runs = Run.objects.select_related("tenant", "node").only(*_SHOWN).order_by("-pk")
        if tenant_id is not None:
            runs = runs.filter(tenant_id=tenant_id)
        runs = services.visible(runs, self.viewer())
        if (last := page.number()) is not None:
            runs = runs.filter(pk__lt=last)
        rows = list(chosen(request, runs)[: page.limit + 1])
        root = root_of(request)
        return page.answer(request, rows, lambda row: shapes.run(row, root), lambda row: row.pk)


class RunView(ApiView):
    """/api/v1/runs/{id}"""

    @extend_schema(**schema.RUN)
    def get(self, request: Request, run_id: int) -> HttpResponse:
        """One run with its attempts and events."""
        row = services.find(self.tenant_id(), run_id, self.viewer())
        attempts = list(
            Attempt.objects.filter(run_id=run_id).select_related("node").order_by("-number")[:DETAIL_MOST]
        )
        events = list(RunEvent.objects.filter(run_id=run_id).order_by("-pk")[:DETAIL_MOST])
        return answer(shapes.detail(row, attempts[::-1], events[::-1], root_of(request)))


class RunLogsView(ApiView):
    """/api/v1/runs/{id}/logs"""

    @extend_schema(**schema.LOGS)
    def get(self, request: Request, run_id: int) -> HttpResponseBase:
        """What the run wrote: whole, a range, or as it comes."""
        return log_response(request, services.find(self.tenant_id(), run_id, self.viewer()))


class RunCancelView(ApiView):
    """/api/v1/runs/{id}/cancel"""

    @extend_schema(**schema.CANCEL)
    def post(self, request: Request, run_id: int) -> HttpResponse:
        """Cancel a waiting run at once; ask the node of a running one to stop it."""
        tenant_id = self.tenant_id()
        done = services.cancel(tenant_id, run_id, operator=tenant_id is None, viewer=self.viewer())
        return answer(
            {
                "id": run_id,
                "state": done.state,
                "accepted": done.accepted,
                "already_final": done.already_final,
                "message": done.message,
            }
        )


class RunRetryView(ApiView):
    """/api/v1/runs/{id}/retry"""

    @extend_schema(**schema.RETRY)
    def post(self, request: Request, run_id: int) -> HttpResponse:
        """Run an ended run once more, as a new run."""
        tenant_id, root = self.tenant_id(), root_of(request)
        callback_url = callback_header(request)

        def create() -> tuple[int, dict[str, Any]]:
            new_id = services.retry(tenant_id, run_id, callback_url, viewer=self.viewer())
            return 201, shapes.run(services.find(tenant_id, new_id), root)

        status, body = created(request, self.who(), create)
        return answer(body, status, {"Location": body["url"]})


class RunExplainView(ApiView):
    """/api/v1/runs/{id}/explain"""

    @extend_schema(**schema.EXPLAIN)
    def get(self, request: Request, run_id: int) -> HttpResponse:
        """Why the run is where it is, the strongest reason first."""
        return answer(services.explain(self.tenant_id(), run_id, viewer=self.viewer()))
