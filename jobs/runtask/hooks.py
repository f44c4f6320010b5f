"""What the engine asks of the runtask family (``workers.vocabulary.families``).

Pure: no database, no HTTP.
"""

from __future__ import annotations

from typing import Any

from jobs.runtask import wire
from workers.vocabulary.families import ENDED, CallbackFacts


def owner(run: Any) -> dict[str, str]:
    """What /api/v1 shows as the owner of a run of this family: the job."""
    return {"id": run.owner_id, "url": f"/job/?job_id={run.owner_id}"}


def callback(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """The body of a callback: the job runs, or it has ended (docs/callbacks.md). Output is not in it."""
    ended = event == ENDED
    failed = ended and wire.failed(facts.state)
    body: dict[str, Any] = {
        "job_id": facts.owner_id,
        "job_done": ended,
        "job_error": failed,
        "name": facts.name,
        "run_id": facts.run_id,
        "node": facts.node or "",
        "exit_code": facts.exit_code,
        "sequence": facts.sequence,
    }
    if failed:
        body["error_message"] = wire.trouble(facts.state, facts.reason, facts.message)
    return body
