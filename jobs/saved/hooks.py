"""What the engine asks of the saved jobs family (``workers.vocabulary.families``).

Pure: no database, no HTTP.
"""

from __future__ import annotations

from typing import Any

from jobs.saved import wire
from workers.vocabulary.families import ENDED, CallbackFacts


def owner_id(job_id: object, executor: int) -> str:
    """What a run is given as its owner: the job and the executor that it belongs to."""
    return f"{job_id}/{executor}"


def owner(run: Any) -> dict[str, str]:
    """What /api/v1 shows as the owner of a run of this family: the executor."""
    job_id, _, executor = run.owner_id.partition("/")
    return {"id": run.owner_id, "url": f"/api/jobs/{job_id}/inspect/{executor}"}


def callback(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """The body of a callback of one target: it runs, or it has ended (docs/callbacks.md).

    ``Status`` as in an executor's Result; ``RunId`` is its run in /api/v1.
    """
    job_id, _, executor = facts.owner_id.partition("/")
    body: dict[str, Any] = {
        "JobId": job_id,
        "Executor": executor,
        "RunId": facts.run_id,
        "JobName": facts.name,
        "NodeName": facts.node or "",
        "Status": "RUNNING",
        "Sequence": facts.sequence,
    }
    if event != ENDED:
        return body
    status = wire.status_of(
        facts.state, facts.reason, facts.exit_code, facts.started_at is not None, facts.facts
    )
    if status is wire.Status.FINISHED:
        return {**body, "Status": str(status), "ExitCode": facts.exit_code or 0}
    return {**body, "Status": str(status), "E": facts.message}
