"""The errors of the saved jobs family and its envelope {"message", "id"}.

Pure: imports nothing but the engine's error classes. ``config.http.errors`` gives the classes their HTTP
status by their engine base class, and calls ``render_error``. Source: contract page 20, "Errors". A message
is the id or name that the seed promises where it promises one, else a sentence.
"""

from __future__ import annotations

from typing import Any, Final

from workers.vocabulary.errors import InvalidInput, NotFound


class NameTaken(InvalidInput):
    """Another job of this AppName has the name; the message is the name."""

    code = "jobs_name_duplicated_error"


class NoSuchJob(NotFound):
    """No job of this tenant has the id, or it is no UUID; the message is the id."""

    code = "job_id_not_found"


class NoSuchExecutor(NotFound):
    """The job has no such executor; the message is its id."""

    code = "executor_id_not_found"


class NoSuchContainer(NotFound):
    """The executor has no result of that container; the message is the container's id as asked."""

    code = "container_id_not_found"


_OWN: Final = frozenset(cls.code for cls in (NameTaken, NoSuchJob, NoSuchExecutor, NoSuchContainer))
_BY_STATUS: Final = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}


def render_error(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """The family's error envelope; ``status`` is the HTTP one."""
    if code in _OWN:
        found = code
    elif status == 400:
        # The name that the client used: Target of Target[3].NodeId. What is wrong as a whole is the body.
        found = f"invalid_{(field or 'body').partition('[')[0].partition('.')[0]}"
    else:
        found = _BY_STATUS.get(status, "internal_error")
    return {"message": message, "id": found}
