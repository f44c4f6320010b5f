"""The errors of the queues family and its envelope {"ok": false, "error": {"id", "message"}}.

Pure: imports nothing but the engine's error classes. ``config.http.errors`` gives the classes their HTTP
status by their engine base class, and calls ``render_error``. Source: contract page 50, "Errors".
"""

from __future__ import annotations

from typing import Any

from workers.vocabulary.errors import Conflict, NotFound


class NoSuchEntry(NotFound):
    """No entry of this tenant and type has the request_id."""

    code = "request_id_not_found"

    def __init__(self, request_id: str, *, field: str | None = None) -> None:
        super().__init__(f"there is no request {request_id} in this queue", field=field)


class RequestIdTaken(Conflict):
    """An entry of the queue has the request_id, or had it within the last year."""

    code = "request_id_duplicated"


class CallbackTaken(Conflict):
    """A queued or running entry of the queue has the callback."""

    code = "callback_duplicated"


def render_error(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """The family's error envelope; ``status`` is the HTTP one. The message names the field."""
    if field and field not in message:
        message = f"{field}: {message}"
    return {"ok": False, "error": {"id": code, "message": message}}
