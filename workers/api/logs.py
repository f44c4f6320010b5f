"""The one view of a log, for /api/v1/runs/{id}/logs and every family's own route.

The caller has authenticated the client and found the run. Parameters: see ``workers.logs.answers``. Must not
import families.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.http import StreamingHttpResponse

from workers.logs.answers import respond
from workers.models import Run


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
    status, headers, body = respond(params, request.headers, run, sse=sse)
    if request.method == "HEAD":
        body = iter(())
    return StreamingHttpResponse(body, status=status, headers=headers)
