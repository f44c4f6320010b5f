"""What happens to every request before and after its view.

``GuardMiddleware``: one spelling of the path, the Host, the body's size, X-Request-Id, headers of the answer,
counters and one log line per change and per failure. The rest are Django's own middlewares for browsers
(sessions, the admin), passed by at no cost when no browser is there. Must not import views.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import PermissionDenied
from structlog.contextvars import bind_contextvars, clear_contextvars

from config.checks import warn_at_start
from config.http import bodies, errors, metrics, trail
from config.http.authentication import refuse_accomplice
from workers.tenants.audit import Record
from workers.tenants.begun import Begun
from workers.vocabulary.errors import without_user_info

log = structlog.get_logger("gantry.http")

GetResponse = Callable[[HttpRequest], HttpResponseBase]

#: Their paths keep Django's form.
DJANGOS_OWN: Final = ("/admin/", "/static/")

_QUIET: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
#: Headers that decide what a request does (beside those that say who asks: an unreadable one is nobody's).
#: One that is there and unreadable is not absent: the server hands it over as an empty text.
_DECIDING: Final = {
    "HTTP_" + name.upper().replace("-", "_"): name
    for name in ("X-Callback-Url", "Idempotency-Key", "Last-Event-ID", "Range")
}
_READABLE: Final = re.compile(r"[\t -~]+")
#: A header that is given twice arrives as one, joined by a comma: what two of them mean nobody knows. A URL
#: may have commas, a second one begins with its scheme. In credentials and X-Tenant-Id a comma fits nothing;
#: several ranges are one header with one "bytes=". Two keys are one key, the same each time they are sent.
_TWICE: Final = {
    "HTTP_X_CALLBACK_URL": re.compile(r",\s*(https?:|$)|^,", re.IGNORECASE),
    "HTTP_LAST_EVENT_ID": re.compile(","),
    "HTTP_RANGE": re.compile(r",\s*(bytes=|$)|^,"),
}
#: Host headers that have passed Django's check; bounded.
_hosts: set[str] = set()
#: Pages load nothing from elsewhere, and nobody frames them. Swagger and the admin set styles inline.
_CSP_PAGES: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_CSP_DATA: Final = "default-src 'none'; frame-ancestors 'none'"


class GuardMiddleware:
    """The first middleware: see the module."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        warn_at_start()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.perf_counter()
        request_id = _request_id(request.META)
        _one_spelling(request)
        _plain_cookies(request.META)
        family = errors.family_of(request.path_info)
        clear_contextvars()
        bind_contextvars(request_id=request_id, family=family)
        problem = _objection(request)
        begun = None
        if problem is not None:
            response: HttpResponseBase = errors.answer(request, problem)
        elif request.method in _QUIET:
            response = self.get_response(request)
        else:
            begun = trail.begin(request, request_id)
            with begun.around():
                response = self.get_response(request)
        # Django would log every 4xx once more.
        response._has_been_logged = True  # type: ignore[attr-defined]
        try:
            _afterwards(request, response, request_id, family, started, begun)
        except Exception:  # what the view has done is done: its answer is the one that is given
            log.exception("request.afterwards", meaning="it is answered; counters, log or audit may lack it")
        return response


def _afterwards(
    request: HttpRequest,
    response: HttpResponseBase,
    request_id: str,
    family: str,
    started: float,
    begun: Begun[Record] | None,
) -> None:
    """Headers of every answer; counted, logged, and a change recorded: first, whatever fails after it."""
    if request.method not in _QUIET:
        trail.note(request, response.status_code, request_id, begun)
    _headers(response, request_id)
    metrics.count(family, response.status_code)
    rate = getattr(request, "rate", None)
    if rate is not None and "X-RateLimit-Limit" not in response.headers:
        response.headers["X-RateLimit-Limit"], response.headers["X-RateLimit-Remaining"] = map(str, rate)
    if request.method not in _QUIET or response.status_code >= 500:
        _log(request, response, started)


def _request_id(meta: dict[str, Any]) -> str:
    given = meta.get("HTTP_X_REQUEST_ID")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return str(given)
    return os.urandom(8).hex()


def _one_spelling(request: HttpRequest) -> None:
    """Take a trailing slash off, so that both spellings meet the same route, without a redirect."""
    path = request.path_info
    if path[-1] == "/" and path != "/" and not path.startswith(DJANGOS_OWN):
        request.path_info = request.META["PATH_INFO"] = path[:-1]
        request.path = request.path[:-1]
    elif path == "/admin":
        request.path_info = request.META["PATH_INFO"] = "/admin/"
        request.path += "/"
    if request.encoding is not None:
        # A charset belongs to the body, which its parser decodes; the URL is UTF-8 whatever it says.
        request.encoding = None  # type: ignore[assignment]  # Django's own default


def _plain_cookies(meta: dict[str, Any]) -> None:
    """Leave out cookies with a backslash, which ours have not.

    Before 3.11.10 and 3.12.6 Python takes the square of their length to read them (CVE-2024-7592): 30,000
    backslashes are 7 s in which nobody is served.
    """
    given = meta.get("HTTP_COOKIE", "")
    if "\\" in given:
        meta["HTTP_COOKIE"] = ";".join(each for each in given.split(";") if "\\" not in each)


def _unclear(meta: dict[str, Any], path: str) -> errors.Problem | None:
    """What headers and address say must be readable, and said once; None when it is."""
    if unreadable := [name for key, name in _DECIDING.items() if not _READABLE.fullmatch(meta.get(key, "-"))]:
        return errors.Problem(
            400,
            "invalid",
            f"the header {unreadable[0]} is empty, or has other characters than printable ASCII: write it in "
            "ASCII (a URL percent-encoded), or leave it out",
        )
    for key, twice in _TWICE.items():
        if key in meta and twice.search(meta[key]):
            return errors.Problem(
                400,
                "invalid",
                f"the header {_DECIDING[key]} was sent twice: send it once",
            )
    query = meta.get("QUERY_STRING", "")
    if query.count("&") >= (settings.DATA_UPLOAD_MAX_NUMBER_FIELDS or 0):
        # Django refuses to read them: that must not come up after the view, when the trail reads its ids.
        return errors.Problem(
            400, "invalid", f"the address has more than {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} parameters"
        )
    if "%00" in query or "\x00" in path:
        return errors.Problem(
            400, "invalid", "the address has the character NUL (%00), which nothing here is called"
        )
    return None


def _objection(request: HttpRequest) -> errors.Problem | None:
    """Why the request goes no further; None when it does."""
    meta = request.META
    host = meta.get("HTTP_HOST", "")
    if host not in _hosts:
        try:
            request.get_host()
        except DisallowedHost as error:
            return errors.problem_of(error)
        if len(_hosts) < 1000:
            _hosts.add(host)
    if (problem := _unclear(meta, request.path_info)) is not None:
        return problem
    if "*" in meta.get("CONTENT_TYPE", ""):
        # RFC 2231's spelling of parameters: no client needs it, and libraries stumble over it.
        return errors.Problem(
            415, "unsupported_media_type", "the Content-Type is not understood: send application/json"
        )
    if request.method not in _QUIET and request.path_info.startswith("/admin/"):
        try:
            refuse_accomplice(request)
        except PermissionDenied as error:
            return errors.problem_of(error)
    limit = bodies.most(request.path_info)
    length = meta.get("CONTENT_LENGTH")
    if length:
        if not (length.isascii() and length.isdigit()):
            return errors.Problem(400, "malformed", "Content-Length is no number")
        if len(length) > 15 or int(length) > limit:
            return errors.too_large(limit)
    return None


def _headers(response: HttpResponseBase, request_id: str) -> None:
    headers = response.headers
    headers["X-Request-Id"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    if isinstance(response, HttpResponse) and "Content-Length" not in headers:
        headers["Content-Length"] = str(len(response.content))
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    if "Content-Security-Policy" not in headers:
        html = headers.get("Content-Type", "").startswith("text/html")
        headers["Content-Security-Policy"] = _CSP_PAGES if html else _CSP_DATA


def _log(request: HttpRequest, response: HttpResponseBase, started: float) -> None:
    """One line. Request id, family and tenant are bound already. No query: it may hold a signature."""
    identity = getattr(request, "identity", None)
    match = request.resolver_match
    named = {} if match is None else match.kwargs
    run = named.get("run_id", named.get("task_id"))
    tell = log.info if response.status_code < 500 else log.warning
    tell(
        "request",
        method=request.method,
        path=without_user_info(request.path_info),
        status=response.status_code,
        ms=round((time.perf_counter() - started) * 1000, 1),
        user=identity.user_name if identity is not None else None,
        via=identity.via if identity is not None else None,
        **({} if run is None else {"run": run}),
    )


def _has_browser(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/") or (
        "HTTP_COOKIE" in request.META and settings.SESSION_COOKIE_NAME in request.COOKIES
    )


class BrowserSessions(SessionMiddleware):
    """Django's sessions, for requests of the admin or with its cookie."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if _has_browser(request) else self.get_response(request)

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        """The view's answer, whatever becomes of the session: what the view has done is done."""
        try:
            return super().process_response(request, response)
        except Exception:
            log.exception("session.not_kept", meaning="whoever it is logs in again")
            return response


class BrowserUsers(AuthenticationMiddleware):
    """``request.user`` from the session, for the same requests."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if _has_browser(request) else self.get_response(request)


class BrowserMessages(MessageMiddleware):
    """The admin's messages."""

    def __call__(self, request: HttpRequest) -> Any:
        return super().__call__(request) if _has_browser(request) else self.get_response(request)
