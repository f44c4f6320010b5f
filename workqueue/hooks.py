"""What the engine asks of the workqueue family (``workers.vocabulary.families``).

Its runs carry batches and owe no callbacks; a job that asked for one (X-Callback-Url) is told once when
nothing of it is left to do, and once more after each retry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import connection

from workers.vocabulary.families import CallbackFacts

FAMILY: Final = "workqueue"
#: What callbacks of this family belong to, as callbacks call it.
OWNER_KIND: Final = "job"


def job_path(job_id: object) -> str:
    """Where a job is shown."""
    return f"/workqueue/api/v1.0/jobs/{job_id}"


def owner(run: Any) -> dict[str, str]:
    """What /api/v1 shows as the owner of a run of this family: the job."""
    return {"id": run.owner_id, "url": job_path(run.owner_id)}


def owner_paths(kind: str, owner_ids: Sequence[str]) -> dict[str, str]:
    """Where the owners of callbacks are shown, by their owner_id; those that are gone are left out."""
    ids = [int(owner_id) for owner_id in owner_ids if owner_id.isdigit()]
    if kind != OWNER_KIND or not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM workqueue_job WHERE id = ANY(%s)", [ids])
        return {str(job_id): job_path(job_id) for (job_id,) in cursor.fetchall()}


def callback(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """Of a run: there is none."""
    raise LookupError("runs of the workqueue family owe no callbacks, their jobs do")


def job_body(job_id: int, kind: str, counts: Mapping[str, int], *, sequence: int) -> dict[str, Any]:
    """What the receiver is told of a job that has ended. ``counts``: num_done, num_failed of its elements."""
    return {
        "job_id": job_id,
        "type": kind,
        "status": "FAILED" if counts["num_failed"] else "DONE",
        "num_elements": sum(counts.values()),
        **counts,
        "sequence": sequence,
    }
