"""runtask over HTTP: read the request, call one service, render the answer.

Must not import models or the worker's side.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, cast

from django.http import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from jobs.runtask import reading, schema, services, wire
from jobs.runtask.asking import requests
from jobs.runtask.bodies import FormBody, MultipartBody
from jobs.runtask.catalogue.folder import catalogue
from workers.api.answers import Page, answer
from workers.api.callback_header import callback_header
from workers.api.lists import listed
from workers.logs.answers import PRUNED
from workers.tenants import idempotency
from workers.tenants.identity import Identity
from workers.vocabulary.errors import InvalidInput


class RuntaskBase(APIView):
    """Base: how bodies are read, which scope each method needs, and who asks."""

    parser_classes = (*APIView.parser_classes, FormBody, MultipartBody)
    scopes: ClassVar[dict[str, str]] = {"GET": "read", "POST": "submit"}

    def who(self) -> Identity:
        """Whom this request acts for; authentication has set it."""
        return cast(Identity, self.request.auth)


class RuntaskView(RuntaskBase):
    """/runtask/"""

    @extend_schema(**schema.SUBMIT)
    def post(self, request: Request) -> HttpResponseBase:
        """Submit a job."""
        who = self.who()
        url = callback_header(request)
        plan = services.prepare(requests.parse(request.data), who.allowed, who.bounds)

        def create() -> tuple[int, dict[str, Any]]:
            return 200, wire.render_submitted(services.submit(who.tenant_id, plan(), url))

        status, body, _ = idempotency.for_request(request._request, who.tenant_id, who.user_id, create)
        return answer(body, status)


class JobView(RuntaskBase):
    """/job/"""

    @extend_schema(**schema.JOB)
    def get(self, request: Request) -> HttpResponseBase:
        """One job: how it stands, and what it has written."""
        job_id = requests.parse_job_id(request.query_params.get("job_id"))
        wait_s = _wait(request.query_params.get("wait", "")) if request.method == "GET" else 0.0
        facts = reading.ended(self.who().tenant_id, job_id, wait_s)
        return answer(
            wire.render_job(facts, *reading.output(facts)), headers=PRUNED if facts.pruned else None
        )


class ListJobsView(RuntaskBase):
    """/listjobs/"""

    @extend_schema(**schema.LIST)
    def get(self, request: Request) -> HttpResponseBase:
        """The ids of the tenant's jobs, the newest last."""
        return listed(request, reading.JobRows(self.who().tenant_id), around=wire.list_around)


class CancelJobView(RuntaskBase):
    """/canceljob/"""

    @extend_schema(**schema.CANCEL)
    def post(self, request: Request) -> HttpResponseBase:
        """End a job: a waiting one at once, a running one by its node."""
        data: Any = request.data
        given = data.get("job_id")
        job_id = requests.parse_job_id(request.query_params.get("job_id") if given is None else given)
        return answer(wire.render_cancelled(*services.cancel(self.who().tenant_id, job_id)))


class DefinitionsView(RuntaskBase):
    """/api/v1/definitions"""

    @extend_schema(**schema.DEFINITIONS)
    def get(self, request: Request) -> HttpResponseBase:
        """The job definitions that /runtask/ can run, by name."""
        page = Page.of(request)
        found = sorted(catalogue().definitions.items())
        rows = [definition for name, definition in found if name > page.cursor][: page.limit + 1]
        return page.answer(request, rows, wire.render_definition, lambda definition: definition.name)


def _wait(text: str) -> float:
    """``?wait=``: seconds from 0 on; more than 60 is 60."""
    if not text:
        return 0.0
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text, re.ASCII):
        raise InvalidInput(f"wait is {text[:40]!r}: use seconds from 0 to 60", field="wait")
    return min(float(text), reading.WAIT_MOST_S)
