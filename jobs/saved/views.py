"""Saved jobs over HTTP: read the request, call one service, render the answer.

Must not import models or the worker's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from jobs.saved import reading, requests, schema, services, starting, wire
from jobs.saved.errors import NoSuchContainer, NoSuchJob
from jobs.saved.wire import JobFacts, Status
from workers.api.answers import answer
from workers.api.callback_header import callback_header
from workers.api.lists import array, as_text, encoded, listed
from workers.api.runs.logs import whole_log
from workers.tenants import idempotency
from workers.tenants.identity import Identity
from workers.vocabulary.errors import InvalidInput


class JobsView(APIView):
    """Base: which scope each method needs (read by config.http.authentication), and who asks."""

    scopes: ClassVar[dict[str, str]] = {"GET": "read", "POST": "submit", "PUT": "submit", "DELETE": "submit"}

    def who(self) -> Identity:
        """Whom this request acts for; authentication has set it."""
        return cast(Identity, self.request.auth)

    def once(self, request: Request, make: Callable[[], JobFacts]) -> HttpResponse:
        """The job that ``make`` returns; made once per Idempotency-Key if the request has one."""

        def create() -> tuple[int, dict[str, Any]]:
            return 200, wire.render_job(make())

        who = self.who()
        status, body, _ = idempotency.for_request(request._request, who.tenant_id, who.user_id, create)
        return answer(body, status)


class JobListView(JobsView):
    """/api/jobs"""

    @extend_schema(**schema.LIST)
    def get(self, request: Request) -> HttpResponseBase:
        """The tenant's jobs, oldest first."""
        return listed(request, reading.JobRows(self.who().tenant_id, request.query_params.get("AppName", "")))

    @extend_schema(**schema.CREATE)
    def post(self, request: Request) -> HttpResponseBase:
        """Save a job."""
        wanted = requests.parse_job(request.data)
        return self.once(request, lambda: services.create(self.who().tenant_id, wanted))


class JobView(JobsView):
    """/api/jobs/{uuid}"""

    @extend_schema(**schema.REPLACE)
    def put(self, request: Request, job_id: str) -> HttpResponseBase:
        """Replace a job; its executors stay as they were."""
        reading.job(self.who().tenant_id, requests.parse_job_id(job_id), job_id)
        wanted = requests.parse_job(request.data)
        return answer(wire.render_job(services.replace(self.who().tenant_id, job_id, wanted)))

    @extend_schema(**schema.DELETE)
    def delete(self, request: Request, job_id: str) -> HttpResponseBase:
        """Delete a job; what runs goes on, and its history stays."""
        services.delete(self.who().tenant_id, job_id)
        return answer("", 202)


class StartView(JobsView):
    """/api/jobs/{uuid}/start"""

    @extend_schema(**schema.START)
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        """Start a job in containers; answers before anything runs."""
        who = self.who()
        reading.job(who.tenant_id, requests.parse_job_id(job_id), job_id)
        planned = starting.plan(who.tenant_id, job_id, requests.parse_targets(request.data))
        url = callback_header(request)
        return self.once(
            request,
            lambda: starting.start(who.tenant_id, who.allowed, job_id, planned, callback_url=url),
        )


class RetryView(JobsView):
    """/api/jobs/{uuid}/retry/{executor}"""

    @extend_schema(**schema.RETRY)
    def post(self, request: Request, job_id: str, executor_id: str) -> HttpResponseBase:
        """Start a job again where an executor of it failed."""
        who = self.who()
        planned = starting.plan_retry(who.tenant_id, job_id, executor_id)
        url = callback_header(request)
        return self.once(
            request, lambda: starting.start(who.tenant_id, who.allowed, job_id, planned, executor_id, url)
        )


class CancelView(JobsView):
    """/api/jobs/{uuid}/cancel/{executor}"""

    @extend_schema(**schema.CANCEL)
    def post(self, request: Request, job_id: str, executor_id: str) -> HttpResponseBase:
        """End what still runs of an executor."""
        return answer(wire.render_job(services.cancel(self.who().tenant_id, job_id, executor_id)))


class InspectView(JobsView):
    """/api/jobs/{uuid}/inspect/{executor}"""

    @extend_schema(**schema.INSPECT)
    def get(self, request: Request, job_id: str, executor_id: str) -> HttpResponseBase:
        """An executor and the result of each of its targets."""
        executor, targets = services.read(self.who().tenant_id, job_id, executor_id)

        def pieces() -> Iterator[str]:
            yield as_text(wire.render_head(executor, targets))[:-1] + ',"Result":['
            yield from array(reading.results(executor, targets))
            yield "]}"

        body = encoded(pieces()) if request.method == "GET" else iter(())
        return StreamingHttpResponse(body, content_type="application/json")


class ExplainView(JobsView):
    """/api/jobs/{uuid}/explain/{executor}"""

    @extend_schema(**schema.EXPLAIN)
    def get(self, request: Request, job_id: str, executor_id: str) -> HttpResponseBase:
        """Why each target of an executor is where it is."""
        return answer(services.explain(self.who().tenant_id, job_id, executor_id))


class LogView(JobsView):
    """/api/jobs/{uuid}/log/{executor}"""

    @extend_schema(**schema.LOG)
    def get(self, request: Request, job_id: str, executor_id: str) -> HttpResponseBase:
        """All output of one container, stdout and stderr in order, as a file."""
        _, targets = services.read(self.who().tenant_id, job_id, executor_id)
        container = request.query_params.get("ContainerId", "")
        if not container:
            raise InvalidInput(
                "ContainerId is missing: name one of the executor's containers", field="ContainerId"
            )
        node = request.query_params.get("NodeId", "")
        target = next(wire.chosen(targets, container, node), None)
        if target is None:
            raise NoSuchContainer(container)
        name = wire.log_name(container, timezone.now())
        if wire.status(target) in (Status.CREATE_FAILED, Status.RUNNING_FAILED):
            return whole_log(request, name, None, text=wire.error(target))
        return whole_log(request, name, target.run_id, stream=reading.STREAM)


class HistoryView(JobsView):
    """/api/jobs/history"""

    @extend_schema(**schema.HISTORY)
    def get(self, request: Request) -> HttpResponseBase:
        """The tenant's executors with their results, oldest first, those of deleted jobs included."""
        given = request.query_params
        job_id: UUID | str | None = given.get("JobId", "")
        if job_id:
            try:
                job_id = requests.parse_job_id(str(job_id))
            except NoSuchJob:
                job_id = None
        rows = reading.ExecutorRows(self.who().tenant_id, given.get("AppName", ""), job_id)
        return listed(request, rows, batch=100)
