"""Jobs over HTTP: read the request, call one service, render the answer. Must not import models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from django.http import HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request

from workers.api.answers import answer
from workers.api.callback_header import callback_header
from workers.api.lists import encoded, listed
from workqueue.book import explaining
from workqueue.calls import WorkqueueView
from workqueue.errors import NoSuchElement
from workqueue.jobs import output, reading, requests, schema, services, wire
from workqueue.models.jobs import Type
from workqueue.receipts.manifest import manifest


class JobsView(WorkqueueView):
    """/jobs"""

    #: What the path says; None: the body does.
    type: ClassVar[Type | None] = None

    @extend_schema(**schema.JOBS)
    def get(self, request: Request) -> HttpResponseBase:
        """The caller's jobs, oldest first, with counts of their elements."""
        return listed(request, reading.JobRows(self.who(), later=self.later))

    @extend_schema(**schema.CREATE)
    def post(self, request: Request) -> HttpResponseBase:
        """Register a job."""
        wanted, url = requests.parse(self.body(), self.type), callback_header(request)

        def create() -> tuple[int, dict[str, Any]]:
            job = services.register(self.who(), wanted, url)
            return 200, wire.render_job(job, later=self.later, registered=True)

        return self.once(request, create)


class RegisterView(JobsView):
    """/list, /copy, /remove, /rename, /mkdir"""

    http_method_names = ["post", "options"]


def registering(name: str) -> type[RegisterView]:
    """The view that registers jobs of one type: "list", "copy"..."""
    made = type(f"{name.title()}View", (RegisterView,), {"type": Type[name.upper()], "__doc__": f"/{name}"})
    return extend_schema_view(post=extend_schema(**schema.POSTS[name]))(made)


class JobView(WorkqueueView):
    """/jobs/{id}"""

    @extend_schema(**schema.JOB)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """One job."""
        return answer(wire.render_job(reading.job(self.who(), job_id), later=self.later))


class JobStatusView(WorkqueueView):
    """/jobs/{id}/status"""

    @extend_schema(**schema.STATUS)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """Its status."""
        return answer(wire.render_status(reading.job(self.who(), job_id)))


class ProgressView(WorkqueueView):
    """/jobs/{id}/progress"""

    @extend_schema(**schema.PROGRESS)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """How far it is."""
        return answer(reading.progress(reading.job(self.who(), job_id)))


class JobExplainView(WorkqueueView):
    """/jobs/{id}/explain"""

    @extend_schema(**schema.EXPLAIN)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """Why it is where it is."""
        return answer(explaining.explain(reading.job(self.who(), job_id)))


class ManifestView(WorkqueueView):
    """/jobs/{id}/manifest"""

    @extend_schema(**schema.MANIFEST)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """What a finished job did, signed: JSON Lines."""
        job = reading.job(self.who(), job_id)
        lines = manifest(job)
        if request.method == "HEAD":
            lines = iter(())
        headers = {"Content-Disposition": f'attachment; filename="manifest-{job.pk}.jsonl"'}
        return StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8", headers=headers)


class JobCancelView(WorkqueueView):
    """/jobs/{id}/cancel"""

    @extend_schema(**schema.CANCEL)
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        """End what has not ended of it."""
        cancelled = services.cancel(self.who(), reading.job(self.who(), job_id))
        now = wire.render_status(reading.job(self.who(), job_id))
        return answer({**now, "cancelled": cancelled})


class JobRetryView(WorkqueueView):
    """/jobs/{id}/retry"""

    @extend_schema(**schema.RETRY)
    def post(self, request: Request, job_id: str) -> HttpResponseBase:
        """Let its failed elements go again."""

        def again() -> tuple[int, dict[str, Any]]:
            job = reading.job(self.who(), job_id)
            retried = services.retry(job)
            return 200, {**wire.render_status(job), "retried": retried}

        return self.once(request, again)


class ElementsView(WorkqueueView):
    """/jobs/{id}/elements"""

    @extend_schema(**schema.ELEMENTS)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """Its elements by number."""
        return listed(request, output.ElementRows(reading.job(self.who(), job_id), later=self.later))


class ElementView(WorkqueueView):
    """/jobs/{id}/elements/{eid}"""

    @extend_schema(**schema.ELEMENT)
    def get(self, request: Request, job_id: str, element_id: str) -> HttpResponseBase:
        """One element, with its whole listing."""
        row = reading.element(reading.job(self.who(), job_id), element_id)
        return _streamed(request, output.element(row, later=self.later))


class ElementStatusView(WorkqueueView):
    """/jobs/{id}/elements/{eid}/status"""

    @extend_schema(**schema.ELEMENT_STATUS)
    def get(self, request: Request, job_id: str, element_id: str) -> HttpResponseBase:
        """Its status and progress."""
        return answer(
            wire.render_element_status(reading.element(reading.job(self.who(), job_id), element_id))
        )


class JobOutputView(WorkqueueView):
    """/jobs/{id}/output"""

    @extend_schema(**schema.OUTPUT)
    def get(self, request: Request, job_id: str) -> HttpResponseBase:
        """What the latest ended attempt of each element said; at v1.1 all of them."""
        job = reading.job(self.who(), job_id)
        if self.later:
            return listed(request, output.LaterOutputRows(job), batch=output.BATCH)
        return listed(request, output.OutputRows(job), batch=output.BATCH)


class ElementOutputView(WorkqueueView):
    """/jobs/{id}/elements/{eid}/output"""

    @extend_schema(**schema.ELEMENT_OUTPUT)
    def get(self, request: Request, job_id: str, element_id: str) -> HttpResponseBase:
        """What its latest ended attempt said; at v1.1 all of them."""
        row = reading.element(reading.job(self.who(), job_id), element_id)
        told = output.attempts(row)
        if self.later:
            return _streamed(request, output.many(row.job_id, told, later=True))
        if not told:
            raise NoSuchElement(f"{element_id} with an attempt that has ended", job_id)
        return _streamed(request, output.value(row.job_id, told[-1], later=False))


class AttemptOutputView(WorkqueueView):
    """/jobs/{id}/elements/{eid}/output/{attempt}"""

    @extend_schema(**schema.ATTEMPT_OUTPUT)
    def get(self, request: Request, job_id: str, element_id: str, attempt: str) -> HttpResponseBase:
        """What one ended attempt said."""
        row = reading.element(reading.job(self.who(), job_id), element_id)
        told = output.chosen(row, attempt)
        return _streamed(request, output.value(row.job_id, told, later=self.later))


def _streamed(request: Request, pieces: Iterable[str]) -> StreamingHttpResponse:
    body: Iterator[bytes] = iter(()) if request.method == "HEAD" else encoded(pieces)
    return StreamingHttpResponse(body, content_type="application/json")
