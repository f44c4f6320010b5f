"""What the engine asks of the saved jobs family (``workers.vocabulary.families``).

Pure: no database, no HTTP.
"""

from __future__ import annotations

from typing import Any

from workers.vocabulary.families import ENDED, CallbackFacts
from workers.vocabulary.states import Reason, State


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
    by_itself = facts.state == State.SUCCEEDED or facts.reason in (Reason.EXIT_CODE, Reason.OOM)
    if by_itself and facts.exit_code is not None:
        return {**body, "Status": "FINISHED", "ExitCode": facts.exit_code}
    status = "CREATE_FAILED" if facts.started_at is None else "RUNNING_FAILED"
    return {**body, "Status": status, "E": facts.message}
