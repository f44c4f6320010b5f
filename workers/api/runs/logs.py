"""The one view of a log, for /api/v1/runs/{id}/logs and every family's own route.

The caller has authenticated the client and found the run. Parameters: see ``workers.logs.answers``. Must not
import families.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol, cast

from django.conf import settings
from django.http import StreamingHttpResponse
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, MethodNotAllowed, Throttled
from rest_framework.request import Request

from workers.logs import signed_urls, store
from workers.logs.answers import HEADERS, PRUNED, Body, gap_line, respond
from workers.models import Run
from workers.tenants import retention_policy
from workers.tenants.identity import CredentialRefused, Identity
from workers.vocabulary.errors import EngineError, NotFound


class LogRequest(Protocol):
    """What is needed of a request: Django's and the REST framework's both have it."""

    @property
    def GET(self) -> Any: ...  # noqa: N802 Django's name
    @property
    def headers(self) -> Any: ...
    @property
    def method(self) -> str | None: ...
    @property
    def path(self) -> str: ...


def log_response(request: LogRequest, run: Run) -> StreamingHttpResponse:
    """The log of ``run`` as the request wants it; raises the engine's errors.

    Below /api/ follow=1 is answered with server-sent events, elsewhere only when Accept asks for them.
    """
    params = {name: request.GET[name] for name in request.GET}
    if request.method == "HEAD":
        params |= {"follow": "0", "wait": "0"}  # whoever asks for headers does not wait
    sse = request.path.startswith("/api/")
    status, headers, body = respond(
        params, request.headers, run, sse=sse, deleted=lambda: _deleted_line(run.pk)
    )
    if request.method == "HEAD":
        body = iter(())
    elif isinstance(body, Body) and isinstance(request, Request):
        body = Body(_while_allowed(body, request), body.close)
    return StreamingHttpResponse(body, status=status, headers=headers)


def _deleted_line(run_id: int) -> str:
    """What stands for the output of a run that retention has deleted."""
    return retention_policy.deleted_lines([run_id]).get(run_id, "")  # none: the run itself has gone


def _while_allowed(body: Iterator[bytes], request: Request) -> Iterator[bytes]:
    """The pieces of ``body``, as long as the credentials of its request are good; it then ends without an
    end event, so that a client asks again and is told why.

    Whoever follows asks once, for hours: what is revoked or has expired meanwhile counts, as elsewhere.
    """
    due = time.monotonic() + settings.TOKEN_CACHE_S
    for piece in body:
        if time.monotonic() >= due:
            if not _still_allowed(request):
                return
            due = time.monotonic() + settings.TOKEN_CACHE_S
        yield piece


def _still_allowed(request: Request) -> bool:
    """Would the same request be let in now?"""
    before = cast(Identity, request.auth)
    try:
        for way in request.authenticators or ():
            if (found := way.authenticate(request)) is not None:
                now = cast(Identity, found[1])
                return now.tenant_id == before.tenant_id and now.scopes >= before.scopes
        return False
    except Throttled:
        return True  # too many requests of the tenant, but a good one
    except (APIException, EngineError):
        return False
    finally:
        store.release()


def whole_log(
    request: LogRequest, name: str, run_id: int | None, *, stream: int | None = None, text: str = ""
) -> StreamingHttpResponse:
    """Everything that the last attempt of a run has written by now, as a file called ``name``; else ``text``.

    ``name`` goes into a header: the caller has made it harmless. Memory is about ``store.BATCH``.
    """
    body: Iterator[bytes] = iter([text.encode()] if text else [])
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    if run_id is not None:
        run = Run.objects.only("id", "attempt", "spec").get(pk=run_id)
        if store.pruned(run.pk, run.attempt):
            headers |= PRUNED
            body = iter([_deleted_line(run.pk).encode()])
        else:
            body = store.read(run.pk, run.attempt, stream, gap=gap_line(run))
    if request.method == "HEAD":
        body = iter(())
    return StreamingHttpResponse(body, headers=headers)


class SignedLogUrl(BaseAuthentication):
    """A log URL that a callback carried: its signature is the credential, for this path and stream only.

    For views of one run's log, whose route names the run as its only parameter.
    """

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        given = request.query_params
        if "signature" not in given:
            return None
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            raise MethodNotAllowed(str(request.method), "a signed URL is for reading (GET, HEAD)")
        problem = signed_urls.check(
            request.path, given.get("stream", ""), given.get("expires", ""), given["signature"]
        )
        if problem == "expired":
            raise CredentialRefused("token_expired", "the signed URL has expired: present a token instead")
        if problem:
            raise CredentialRefused(
                "token_invalid",
                "the signature does not fit this path, stream and expiry: use the URL as it was",
            )
        (run_id,) = (request.parser_context or {})["kwargs"].values()
        owner = Run.objects.filter(pk=run_id).values_list("tenant_id", "tenant__name").first()
        if owner is None:
            raise NotFound(f"there is no run {run_id}")
        found = Identity(owner[0], owner[1], None, "signed-url", frozenset(("read",)), "signed")
        request._request.identity = found  # type: ignore[attr-defined]  # for the access log, and its share of places
        return found, found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
