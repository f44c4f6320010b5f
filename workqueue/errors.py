"""The workqueue family's envelope {"error": {"code", "message"}}; ``code`` is the HTTP status.

Pure. ``config.http.errors`` calls ``render_error``. Source: contract page 40, "Errors".
"""

from __future__ import annotations

from typing import Any

from workers.vocabulary.errors import NotFound


class NoSuchSite(NotFound):
    """No site that the caller may see has the id."""

    def __init__(self, site_id: object, *, field: str | None = None) -> None:
        super().__init__(f"there is no site {str(site_id)[:40]}", field=field)


class NoSuchJob(NotFound):
    """No job of the caller has the id, or it is no number."""

    def __init__(self, job_id: object, *, field: str | None = None) -> None:
        super().__init__(f"there is no job {str(job_id)[:40]}", field=field)


class NoSuchElement(NotFound):
    """The job has no such element, or none yet."""

    def __init__(self, element_id: object, job_id: object, *, field: str | None = None) -> None:
        super().__init__(f"job {str(job_id)[:40]} has no element {str(element_id)[:40]}", field=field)


def render_error(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """The family's error envelope; ``status`` is the HTTP one. The message names the field."""
    if field and field not in message:
        message = f"{field}: {message}"
    return {"error": {"code": status, "message": message}}
