"""What the runtask family says on the wire: jobs, lists, cancels, definitions.

Pure: no database, no HTTP. Requests are read in ``jobs.runtask.asking``, errors rendered in
``jobs.runtask.errors``. Source: contract page 30 and seed 000.

| run                 | job_done | job_error | error                                              |
| ------------------- | -------- | --------- | -------------------------------------------------- |
| PENDING, RUNNING    | false    | false     | stderr so far                                      |
| SUCCEEDED           | true     | false     | stderr                                             |
| FAILED, exit_code   | true     | true      | stderr, or what happened when that is empty        |
| FAILED otherwise    | true     | true      | what happened, then stderr                         |
| CANCELLED           | true     | true      | Cancelled: by whom or when                         |
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from jobs.runtask.catalogue.parsing import Definition
from workers.vocabulary.states import Reason, State, is_final

_LABELS: Final = {reason.value: reason.label for reason in Reason if reason}
_CANCELLED: Final = "Cancelled: "


class JobFacts(NamedTuple):
    """A job with its run: one row of ``reading.job``."""

    pk: int
    run_id: int
    state: str
    reason: str
    message: str
    attempt: int
    #: Retention has deleted what the last attempt wrote.
    pruned: bool


def done(facts: JobFacts) -> bool:
    """Has the job ended?"""
    return is_final(facts.state)


def failed(state: str) -> bool:
    """Is this the state of a job that ended otherwise than well?"""
    return state in (State.FAILED, State.CANCELLED)


def trouble(state: str, reason: str, message: str) -> str:
    """Why a job failed, without its stderr."""
    if state == State.CANCELLED:
        # The engine's own sentence says it, too.
        return _CANCELLED + (message.removeprefix("Cancelled").strip(" :") or "on request")
    return message or f"it has failed: {_LABELS.get(reason, 'nothing more is known')}"


def render_job(facts: JobFacts, out: bytes, err: bytes) -> dict[str, Any]:
    """The answer of /job/; every key but the last two is always there."""
    shown, error = out.decode(errors="replace"), err.decode(errors="replace")
    bad = failed(facts.state)
    if bad:
        why = trouble(facts.state, facts.reason, facts.message)
        if facts.state == State.CANCELLED:
            error = why
        elif facts.reason != Reason.EXIT_CODE:
            error = f"{why}\n{error}" if error else why
        elif not error.strip():
            error = why
    body: dict[str, Any] = {
        "job_id": str(facts.pk),
        "job_done": done(facts),
        "job_error": bad,
        "status": True,
        "out": shown,
        "error": error,
    }
    if bad:
        body["error_message"] = error
    elif body["job_done"]:
        body["process_out"] = shown
    return body


def render_submitted(job_id: int) -> dict[str, Any]:
    """The answer of /runtask/."""
    return {"status": True, "job_id": str(job_id)}


def render_cancelled(job_id: int, running: bool) -> dict[str, Any]:
    """The answer of /canceljob/; ``running``: had it not ended before?"""
    return {"job_id": str(job_id), "prevstatus": running, "status": True}


def list_around(empty: bool) -> tuple[str, str]:
    """What stands before and after the ids in the answer of /listjobs/."""
    return f'{{"status":true,"empty":{"true" if empty else "false"},"jobs":[', "]}"


def render_definition(definition: Definition) -> dict[str, Any]:
    """One entry of /api/v1/definitions; ``image`` only where there is one."""
    taken = definition.parameters
    return {
        "name": definition.name,
        "first": definition.first,
        "parameters": taken if isinstance(taken, int) else list(taken),
        **({"image": definition.image} if definition.image else {}),
        "description": definition.description,
    }


def left_out(length: int) -> bytes:
    """What stands where the middle of an output was not kept."""
    return f"\n[... {length} bytes left out: more output than is kept ...]\n".encode()
