"""Why a job is where it is (a placeholder of this branch)."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workqueue.models import Job


def explain(job: Job) -> dict[str, Any]:
    """Nothing yet."""
    state = "ENDED" if job.finished_at else "SUBMITTED"
    return {"state": state, "since": stamp(job.changed_at), "reasons": [], "position": None, "estimate": None}
