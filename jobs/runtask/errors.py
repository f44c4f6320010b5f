"""The errors of the runtask family and its envelope {"status": false, "error_message": "<kind>: <what>"}.

Pure: imports nothing but the engine's error classes. ``config.http.errors`` gives the classes their HTTP
status by their engine base class, and calls ``render_error``. Source: contract page 30, "Errors".
"""

from __future__ import annotations

from typing import Any, Final

from workers.vocabulary.errors import Conflict, Forbidden, InvalidInput, NotFound, Upstream


class NoSuchJob(NotFound):
    """No job of this tenant has the id."""


class NoSuchDefinition(InvalidInput):
    """No job definition has the name."""


class BrokenDefinition(Conflict):
    """The job definition cannot be used until an operator mends it."""


class Refused(Forbidden):
    """The tenant's policy does not open it."""


class SwiftRefused(Upstream):
    """The object storage said no, or nothing; its status and reason are in the message."""

    code = "swift"


#: What has no kind of its own is a request that cannot be understood (405, 415), or our fault (5xx).
_KINDS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    413: "TooLarge",
    429: "TooManyRequests",
    502: "SwiftError",
}


def render_error(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """The family's error envelope; ``status`` is the HTTP one."""
    kind = _KINDS.get(status, "BadRequest" if status < 500 else "InternalError")
    return {"status": False, "error_message": f"{kind}: {message}"}
