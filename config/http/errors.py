"""Every error of the API, in the envelope of the family it belongs to: one mapping from error to status.

``handle`` serves DRF's views, ``page_400`` to ``page_500`` are Django's handlers, ``answer`` is for
middleware. No answer is HTML and none shows a stack trace; what went wrong inside goes to the log. Outside
the families the envelope is {"error": {"code", "message", "field"?}}. Must not import views.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as declared
from functools import cache
from typing import Any, Final

import structlog
from django.conf import settings
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, RawPostDataException, UnreadablePostError
from django.utils.module_loading import import_string
from rest_framework import exceptions as drf

from config.http.bodies import CutBody, SlowBody
from workers.tenants.identity import CredentialRefused, TenantRefused
from workers.vocabulary import errors as engine

log = structlog.get_logger(__name__)

Render = Callable[[int, str, str, str | None], dict[str, Any]]

#: The calls of runtask have no prefix in common.
RUNTASK_MOUNTS: Final = ("/runtask", "/job", "/listjobs", "/canceljob")
#: (mount point, family, its function render_error(status, code, message, field) -> envelope). The first one
#: counts: below /v1 a family's word is never a queue's type.
ENVELOPES: Final = (
    ("/v1/tasks", "tasks", "tasks_api.wire.render_error"),
    ("/api/jobs", "jobs", "jobs.saved.errors.render_error"),
    *((mount, "runtask", "jobs.runtask.errors.render_error") for mount in RUNTASK_MOUNTS),
    ("/v1", "queues", "queues.entries.errors.render_error"),
    ("/workqueue", "workqueue", "workqueue.errors.render_error"),
    ("/site/api", "workqueue", "workqueue.errors.render_error"),
)

#: The strongest class of an error's ancestry counts. Contract page 00; "refused by policy" is 400 on page 10.
STATUS: Final[Mapping[type[Exception], int]] = {
    engine.InvalidInput: 400,
    engine.RefusedByPolicy: 400,
    engine.AddressRefused: 400,
    CredentialRefused: 401,
    TenantRefused: 403,
    engine.Forbidden: 403,
    engine.NotFound: 404,
    engine.Conflict: 409,
    engine.LimitReached: 429,
    engine.SecretUnreadable: 500,
    engine.EngineError: 500,
    engine.Upstream: 502,
    engine.Unavailable: 503,
}
#: Seconds after which a client may try again when the database does not answer.
RETRY_S: Final = 5


@dataclass(frozen=True)
class Problem:
    """An error as the client is told of it."""

    status: int
    code: str
    message: str
    field: str | None = None
    headers: dict[str, str] = declared(default_factory=dict)


def family_of(path: str) -> str:
    """The family below whose mount point a path lies; "api" for everything else."""
    for prefix, family, _ in ENVELOPES:
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
            return family
    return "api"


def render_plain(status: int, code: str, message: str, field: str | None = None) -> dict[str, Any]:
    """The envelope outside the families."""
    error = {"code": code, "message": message}
    if field is not None:
        error["field"] = field
    return {"error": error}


@cache
def renderer(family: str) -> Render:
    """The function that renders a family's envelope."""
    for _, name, dotted in ENVELOPES:
        if name == family:
            render: Render = import_string(dotted)
            return render
    return render_plain


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The problem as this path's family words it."""
    render = renderer(family_of(request.path_info))
    body = json.dumps(render(problem.status, problem.code, problem.message, problem.field))
    headers = dict(problem.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = challenge(request)
    return HttpResponse(body, status=problem.status, content_type="application/json", headers=headers)


def challenge(request: HttpRequest) -> str:
    """What to authenticate with. Browsers are not offered Basic: they would keep it and send it along."""
    bearer = 'Bearer realm="gantry"'
    return bearer if "HTTP_SEC_FETCH_SITE" in request.META else f'{bearer}, Basic realm="gantry"'


def problem_of(exc: BaseException | None) -> Problem | None:
    """What to tell the client of an exception; None for one that nobody foresaw."""
    if isinstance(exc, engine.EngineError):
        status = next(STATUS[cls] for cls in type(exc).__mro__ if cls in STATUS)
        headers = {}
        if isinstance(exc, engine.Unavailable | engine.LimitReached):
            headers["Retry-After"] = str(exc.retry_after)
        if isinstance(exc, engine.LimitReached):
            headers |= {"X-RateLimit-Limit": str(exc.limit), "X-RateLimit-Remaining": str(exc.remaining)}
        return Problem(status, exc.code, exc.message, exc.field, headers)
    if isinstance(exc, drf.APIException):
        return _of_drf(exc)
    if isinstance(exc, OperationalError | InterfaceError):
        # The driver's text names hosts and users: it is for the log only.
        log.warning("database.unavailable", error=str(exc).strip())
        return Problem(
            503,
            "database",
            "the database does not answer now: send the request again later",
            headers={"Retry-After": str(RETRY_S)},
        )
    return _of_django(exc)


def _of_django(exc: BaseException | None) -> Problem | None:
    if isinstance(exc, Http404):
        return Problem(
            404,
            "not_found",
            str(exc) if exc.args and isinstance(exc.args[0], str) else "there is no such thing",
        )
    if isinstance(exc, PermissionDenied):
        return Problem(403, "forbidden", str(exc) or "this is not allowed")
    if isinstance(exc, RequestDataTooBig):
        return too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    if isinstance(exc, DisallowedHost):
        return Problem(
            400,
            "bad_host",
            "the Host header names a host that this service does not serve: see GANTRY_ALLOWED_HOSTS",
        )
    if isinstance(exc, RawPostDataException):
        return Problem(415, "unsupported_media_type", "a form is not understood here: send JSON")
    if isinstance(exc, UnreadablePostError | SlowBody | CutBody):
        why: BaseException = exc
        while why.__cause__ is not None:  # Django wraps it more than once
            why = why.__cause__
        if isinstance(why, SlowBody):
            return Problem(408, "too_slow", str(why))
        return Problem(400, "malformed", "the request's body ended early")
    if isinstance(exc, DataError):
        log.warning("database.refused_value", error=str(exc).strip())
        return Problem(
            400, "invalid", "a value is outside of what can be stored (a number too large, a NUL character)"
        )
    if isinstance(exc, SuspiciousOperation | BadRequest):
        return Problem(400, "invalid", "the request is not acceptable")
    return None


def _of_drf(exc: drf.APIException) -> Problem:
    if isinstance(exc, drf.ValidationError):
        name, code, text = _first(exc.get_full_details())
        code = "required" if code in ("required", "null", "blank", "empty") else "invalid"
        return Problem(400, code, f"{name}: {text}" if name else text, name or None)
    codes = {
        drf.ParseError: "malformed",
        drf.NotAuthenticated: "token_missing",
        drf.AuthenticationFailed: "token_invalid",
        drf.PermissionDenied: "forbidden",
        drf.NotFound: "not_found",
        drf.MethodNotAllowed: "method_not_allowed",
        drf.UnsupportedMediaType: "unsupported_media_type",
        drf.Throttled: "throttled",
    }
    code = next((codes[cls] for cls in type(exc).__mro__ if cls in codes), str(exc.default_code))
    headers, text = {}, str(exc.detail)
    if isinstance(exc, drf.Throttled):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(exc, "wait", None) or 1)))
    if isinstance(exc, drf.MethodNotAllowed):
        text = text.rstrip(".") + " here; the header Allow names those that are"
    return Problem(exc.status_code, code, text, headers=headers)


def _first(details: Any, path: str = "") -> tuple[str, str, str]:
    """The first wrong field of a validation error: its path, code and text."""
    if (
        isinstance(details, dict)
        and "message" in details
        and "code" in details
        and isinstance(details["code"], str)
    ):
        return path, details["code"], str(details["message"])
    if isinstance(details, dict):
        for name, inner in details.items():
            if inner:
                deeper = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
                return _first(inner, deeper)
    if isinstance(details, list):
        for number, inner in enumerate(details):
            if inner:
                leaf = isinstance(inner, dict) and isinstance(inner.get("code"), str)
                return _first(inner, path if leaf else f"{path}[{number}]")
    return path, "invalid", "not valid"


def too_large(limit: int) -> Problem:
    """413; ``limit`` in bytes."""
    return Problem(413, "too_large", f"the request's body is larger than {limit} bytes")


def handle(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's EXCEPTION_HANDLER. None: nobody foresaw it, Django logs it and has page_500 answer."""
    problem = problem_of(exc)
    if problem is None:
        return None
    request: HttpRequest = context["request"]._request
    foreseen = isinstance(
        exc, engine.Unavailable | engine.Upstream
    )  # others' trouble: the answer says it all
    if problem.status >= 500 and problem.code != "database" and not foreseen:
        log.error("request.failed", code=problem.code, exc_info=exc)
    return answer(request, problem)


def page_400(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler400."""
    return answer(request, problem_of(exception) or Problem(400, "invalid", "the request is not acceptable"))


def page_403(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler403."""
    return answer(request, problem_of(exception) or Problem(403, "forbidden", "this is not allowed"))


def page_404(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404. The exception of an unknown path lists every route: it is not shown."""
    if isinstance(exception, Http404) and exception.args and isinstance(exception.args[0], str):
        return answer(request, Problem(404, "not_found", exception.args[0]))
    path = engine.without_user_info(request.path_info)
    text = f"there is no path {path}: the paths are described at /api/docs/"
    return answer(request, Problem(404, "not_found", text))


def page_500(request: HttpRequest) -> HttpResponse:
    """Django's handler500, called while the exception is being handled."""
    problem = problem_of(sys.exc_info()[1])
    if problem is None or problem.status < 500:
        text = "something went wrong inside; the log has the details under this answer's X-Request-Id"
        problem = Problem(500, "internal", text)
    return answer(request, problem)
