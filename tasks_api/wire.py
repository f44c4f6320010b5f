"""What the tasks family says on the wire: task objects, answers, the error envelope, the engine's hooks.

Pure: no database, no HTTP. ``parse`` (requests) is in ``tasks_api.submission``, the status table in
``tasks_api.status``, the error numbers in ``tasks_api.codes``. Sources: contract page 10 and seed 004.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tasks_api import codes, status
from tasks_api.codes import BadIds, Missing, NotAllowed
from tasks_api.fields import kind, show
from tasks_api.status import Facts, TaskStatus
from tasks_api.submission import TaskRequest, parse
from workers.vocabulary.families import CallbackFacts
from workers.vocabulary.states import State

__all__ = [
    "IDS_MOST",
    "Facts",
    "TaskRequest",
    "TaskStatus",
    "callback",
    "date",
    "owner",
    "parse",
    "parse_id",
    "parse_ids",
    "render_error",
    "render_kill",
    "render_ok",
    "render_reconcile",
    "render_task",
]

#: Most ids in one question.
IDS_MOST: Final = 1000

_ID: Final = re.compile(r"[+-]?[0-9]{1,19}")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# --- Requests ----------------------------------------------------------------------------------------


def parse_id(given: object, name: str = "taskId") -> int:
    """One id: any 64-bit integer, as text or as a JSON number."""
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    text = str(given).strip() if isinstance(given, str | int) and not isinstance(given, bool) else None
    if text == "" or given is None:
        raise Missing(f"{name} is missing or blank: give the number that the submission answered", field=name)
    if text is None:
        raise BadIds(f"{name} is {kind(given)}: it must be a whole number", field=name)
    if not _ID.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise BadIds(f"{name} contains {show(text)}: it must be a 64-bit whole number", field=name)
    return int(text)


def parse_ids(given: object, name: str = "taskIds") -> list[int]:
    """Ids separated by commas (or a JSON list of them), in the order asked, duplicates once."""
    parts = given if isinstance(given, list) else str("" if given is None else given).split(",")
    if not isinstance(given, list):
        if not "".join(parts).strip() and len(parts) == 1:
            parts = []
        # The original's Java drops empty parts at the end: "1,2," is 1 and 2.
        while len(parts) > 1 and not parts[-1].strip():
            parts.pop()
    if not parts:
        raise Missing(f"{name} is missing or blank: give task ids separated by commas", field=name)
    for part in parts:
        if isinstance(part, str) and not part.strip():
            raise BadIds(f"{name} has nothing between two commas: give whole numbers", field=name)
    ids = list(dict.fromkeys(parse_id(part, name) for part in parts))
    if len(ids) > IDS_MOST:
        raise NotAllowed(f"{name} has {len(ids)} ids: ask for at most {IDS_MOST} at a time", field=name)
    return ids


# --- Answers -----------------------------------------------------------------------------------------


def date(moment: datetime) -> str:
    """``Dec 8, 2016 4:03:08 PM`` in UTC, whatever the locale."""
    moment = moment.astimezone(UTC)
    hour = moment.hour % 12 or 12
    half = "AM" if moment.hour < 12 else "PM"
    return (
        f"{_MONTHS[moment.month - 1]} {moment.day}, {moment.year} "
        f"{hour}:{moment.minute:02d}:{moment.second:02d} {half}"
    )


def render_ok(data: object) -> dict[str, object]:
    """The envelope of every answer that is not an error."""
    return {"status": 0, "message": "OK", "data": data}


def render_task(
    facts: Facts, tenant: str, waiting: Mapping[int, str], silent_after_s: float
) -> dict[str, object]:
    """The task object; absent values are left out. For the last two see ``status.message``."""
    task: dict[str, object] = {"taskId": facts.id, "taskName": facts.name, "tenantId": tenant}
    if facts.image is not None:
        task["dockerImage"] = facts.image
    elif facts.commands is not None:
        task["commands"] = facts.commands
    task["taskStatus"] = int(status.status(facts))
    task["message"] = status.message(facts, waiting, silent_after_s)
    if facts.callback_at is not None:
        task["callbackAt"] = date(facts.callback_at)
    if facts.callback_url:
        task["callbackUrl"] = facts.callback_url
    task["submitAt"] = date(facts.created_at)
    if facts.finished_at is not None:
        task["finishAt"] = date(facts.finished_at)
    if host := facts.host or facts.node:
        task["agentHost"] = host
    task["retry"] = facts.retries_left
    return task


def render_kill(facts: Facts, accepted: bool, silent_after_s: float) -> dict[str, object]:
    """The answer to a kill: ``facts`` as they are after it, ``accepted`` unless it had ended before.

    ``submitTask`` is what the later SDK calls ``submitKill``.
    """
    running = accepted and facts.state == State.RUNNING
    message = "juice accept kill task command" if running else status.message(facts, {}, silent_after_s)
    return {
        "submitKill": accepted,
        "submitTask": accepted,
        "resultMessage": message,
        "currentStatus": int(status.status(facts)),
    }


def render_reconcile(ids: list[int], results: Mapping[int, tuple[bool, str]]) -> dict[str, object]:
    """The answer to a reconcile. ``results``: id -> (was it compared with its node?, what was found)."""
    answers = [(task_id, *results.get(task_id, (False, "invalid taskId"))) for task_id in ids]
    return {
        "request": len(ids),
        "reconcile": sum(done for _, done, _ in answers),
        "reconciles": [
            {"taskId": task_id, "reconciled": done, "message": message} for task_id, done, message in answers
        ],
    }


# --- Hooks: config.http.errors and workers.vocabulary.families call these
# ------------------------------------


def render_error(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """The family's error envelope; ``status`` is the HTTP one. The message names the field."""
    if field and field not in message:
        message = f"{field}: {message}"
    return {"status": codes.number(status, code), "message": message}


class _Run(Protocol):
    @property
    def pk(self) -> Any: ...


def owner(run: _Run) -> dict[str, str]:
    """What /api/v1 shows as the owner of a run of this family: the task itself."""
    return {"id": str(run.pk), "url": f"/v1/tasks/{run.pk}"}


#: Who makes a change without the node on which the task runs; Mesos called that the master.
_NOT_THE_NODE: Final = frozenset(("client", "operator", "reconciler"))


def callback(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """The body of a callback: of an attempt that has started, or of the task's end."""
    task = Facts(
        id=facts.run_id,
        name=facts.name,
        commands=None,
        image=facts.image,
        state=facts.state,
        reason=facts.reason,
        message=facts.message,
        exit_code=facts.exit_code,
        attempt=facts.attempt,
        retries_left=facts.retries_left,
        started_at=facts.started_at,
        created_at=facts.created_at,
        finished_at=facts.finished_at,
        not_before=None,
        cancel_requested_at=None,
        by_operator=facts.by_operator,
        callback_url="",
        shape_id=0,
        node=facts.node,
        host=facts.host,
        silent_s=None,
    )
    found = status.status(task)
    path = f"/v1/tasks/{facts.run_id}/logs"
    return {
        "taskId": facts.run_id,
        "result": found.name,
        "message": status.message(task, {}, 0.0),
        "source": "SOURCE_MASTER" if facts.by in _NOT_THE_NODE else "SOURCE_EXECUTOR",
        "logs": [facts.signed_log(path, "stdout"), facts.signed_log(path, "stderr")],
        "taskName": facts.name,
        "tenantId": facts.tenant,
        "taskStatus": int(found),
        "exitCode": facts.exit_code,
        "attempt": facts.attempt,
        "sequence": facts.sequence,
    }
