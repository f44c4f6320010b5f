"""The tasks family over HTTP: read the request, call one service, render the answer.

Must not import models or the worker's side. Answers are written as JSON at once: DRF's renderers and
negotiation would cost more than the work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

from django.conf import settings
from django.http import HttpResponse, HttpResponseBase, QueryDict
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.views import APIView

from tasks_api import schema, services, wire
from workers.api.callback_header import callback_header
from workers.api.runs.logs import SignedLogUrl, log_response
from workers.tenants import idempotency
from workers.tenants.identity import Identity


def answer(body: object, status: int = 200) -> HttpResponse:
    """A JSON response, written without detours."""
    return HttpResponse(
        json.dumps(body, ensure_ascii=False, separators=(",", ":")), "application/json", status
    )


def parameter(request: Request, name: str) -> object:
    """A parameter from the query (repeated ones joined by commas), else from the form or JSON body."""
    values = request.query_params.getlist(name)
    if not values and request.method == "POST":
        body = request.data
        if not isinstance(body, QueryDict):
            return body.get(name) if isinstance(body, dict) else None
        values = body.getlist(name)
    return ",".join(values) if values else None


class TaskView(APIView):
    """Base: which scope each method needs (read by config.http.authentication), and who asks."""

    scopes: ClassVar[Mapping[str, str]] = {"GET": "read", "POST": "submit"}

    def who(self) -> Identity:
        """Whom this request acts for; authentication has set it."""
        return cast(Identity, self.request.auth)


class TasksView(TaskView):
    """/v1/tasks"""

    @extend_schema(**schema.SUBMIT)
    def post(self, request: Request) -> HttpResponseBase:
        """Submit a task."""
        identity = self.who()
        task = wire.parse(request.data, identity.allowed, identity.bounds, settings.GANTRY_HOST_PORTS)
        if not task.callback_url:
            task = replace(task, callback_url=callback_header(request))

        def create() -> tuple[int, dict[str, Any]]:
            return 200, wire.render_ok({"taskId": services.submit(identity.tenant_id, task)})

        once = idempotency.for_request
        status, body, _ = once(request._request, identity.tenant_id, identity.user_id, create)
        return answer(body, status)

    @extend_schema(**schema.QUERY)
    def get(self, request: Request) -> HttpResponseBase:
        """The tasks with these ids."""
        identity = self.who()
        ids = wire.parse_ids(parameter(request, "taskIds"))
        return answer(wire.render_ok(services.describe(identity.tenant_id, identity.tenant_name, ids)))


class IdsView(TaskView):
    """Base of what takes ids from the query, a form or a JSON body."""

    parser_classes = (*APIView.parser_classes, FormParser, MultiPartParser)


class KillView(IdsView):
    """/v1/tasks/kill"""

    @extend_schema(**schema.KILL)
    def post(self, request: Request) -> HttpResponseBase:
        """Kill a task: a waiting one at once, a running one by TERM, then KILL after its grace period."""
        task_id = wire.parse_id(parameter(request, "taskId"))
        return answer(wire.render_ok(services.kill(self.who().tenant_id, task_id)))


class ReconcileView(IdsView):
    """/v1/tasks/reconcile"""

    @extend_schema(**schema.RECONCILE)
    def post(self, request: Request) -> HttpResponseBase:
        """Compare tasks with what their nodes see now, and repair the difference."""
        ids = wire.parse_ids(parameter(request, "taskIds"))
        return answer(wire.render_ok(services.reconcile(self.who().tenant_id, ids)))


class OneTaskView(TaskView):
    """/v1/tasks/{taskId}"""

    @extend_schema(**schema.RETRIEVE)
    def get(self, request: Request, task_id: int) -> HttpResponseBase:
        """One task."""
        identity = self.who()
        task = services.describe_one(identity.tenant_id, identity.tenant_name, task_id)
        return answer(wire.render_ok(task))


class TaskLogsView(TaskView):
    """/v1/tasks/{taskId}/logs"""

    authentication_classes = (SignedLogUrl, *APIView.authentication_classes)

    @extend_schema(**schema.LOGS)
    def get(self, request: Request, task_id: int) -> HttpResponseBase:
        """What the task wrote, while it runs and afterwards."""
        return log_response(request, services.find(self.who().tenant_id, task_id))


class TaskExplainView(TaskView):
    """/v1/tasks/{taskId}/explain"""

    @extend_schema(**schema.EXPLAIN)
    def get(self, request: Request, task_id: int) -> HttpResponseBase:
        """Why the task is where it is."""
        return answer(wire.render_ok(services.explain_task(self.who().tenant_id, task_id)))
