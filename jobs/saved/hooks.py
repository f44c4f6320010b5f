"""What the engine asks of the saved jobs family (``workers.registry``). Pure: no database, no HTTP."""

from __future__ import annotations

from typing import Any


def owner_id(job_id: object, executor: int) -> str:
    """What a run is given as its owner: the job and the executor that it belongs to."""
    return f"{job_id}/{executor}"


def owner(run: Any) -> dict[str, str]:
    """What /api/v1 shows as the owner of a run of this family: the executor."""
    job_id, _, executor = run.owner_id.partition("/")
    return {"id": run.owner_id, "url": f"/api/jobs/{job_id}/inspect/{executor}"}
