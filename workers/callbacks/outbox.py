"""Callbacks are owed here: rows written in the transaction of the change that they tell of.

Two statements for a whole group of runs (what to tell, and the rows), none for runs without a callback URL.
Bodies are rendered by the family's pure function; one that fails leaves a minimal body, never a failed
transition. Locks: the caller holds the runs; then the runs' undecided callbacks, by id, so that a callback
being decided at this moment and its successor see each other. Must not import transitions, services or HTTP.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any, Final

import structlog
from django.db import connection
from django.db.backends.utils import CursorWrapper

from workers import addresses
from workers.logs import signed_urls
from workers.messages import doorbell
from workers.vocabulary import families
from workers.vocabulary.errors import InvalidInput
from workers.vocabulary.families import ENDED, RUNNING, CallbackFacts
from workers.vocabulary.states import State

log = structlog.get_logger(__name__)

#: The receiver of a URL that cannot be taken apart; every delivery says why.
NOWHERE: Final = "nowhere"

#: A deliverer that has not been heard for so long is not there, in seconds.
SILENT_S: Final = 30

_FACTS: Final = """
    SELECT r.id, r.tenant_id, t.name, r.family, r.kind, r.name, r.owner_id, r.callback_url, r.state, r.reason,
        r.message, r.exit_code, r.attempt, r.retries_left, r.created_at, a.started_at, r.finished_at,
        r.cancelled_by_operator, r.spec ->> 'image', n.name, n.attributes ->> 'hostname',
        coalesce(a.facts, '{}'::jsonb), coalesce(c.last, 0), coalesce(c.waits, false)
    FROM workers_run r JOIN workers_tenant t ON t.id = r.tenant_id
    LEFT JOIN workers_attempt a ON a.run_id = r.id AND a.number = r.attempt
    LEFT JOIN workers_node n ON n.id = a.node_id
    LEFT JOIN LATERAL (SELECT max(sequence) AS last, bool_or(state = 'due' AND NOT yields) AS waits
        FROM workers_callback WHERE owner_kind = 'run' AND owner_id = r.id::text) c ON true
    WHERE r.id = ANY(%s) AND r.callback_url <> ''
"""


def owe(cursor: CursorWrapper, events: Sequence[tuple[int, str]], *, by: str) -> None:
    """Owe a callback for each (run id, RUNNING or ENDED), in this order; the runs are locked by the caller.

    ``by``: who made the change. A run without a callback URL is left out.
    """
    if not events:
        return
    cursor.execute(_FACTS, [list({run_id for run_id, _ in events})])
    found = {row[0]: row for row in cursor.fetchall()}
    if not found:
        return
    waiting = _undecided(cursor, [str(run_id) for run_id, row in found.items() if row[-1]])
    sequences = {run_id: row[-2] for run_id, row in found.items()}
    rows: list[tuple[Any, ...]] = []
    for run_id, event in events:
        if run_id not in found:
            continue
        sequences[run_id] += 1
        tenant_id, family, url = (found[run_id][index] for index in (1, 3, 7))
        body = render(_facts(found[run_id], event, sequences[run_id], by), event)
        owner = (tenant_id, family, "run", str(run_id), run_id, sequences[run_id])
        message = (event, message_id(), url, receiver(url), body, str(run_id) in waiting)
        rows.append((*owner, *message))
        waiting.add(str(run_id))  # the next one of this run waits for this one
    insert(cursor, rows)


def insert(cursor: CursorWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write callbacks; also for objects of families that are no runs.

    Each row: tenant id, family, owner kind, owner id, run id or None, sequence, event, message id, url,
    receiver, body, whether an earlier one of the same owner is undecided.
    """
    if not rows:
        return
    marks = ", ".join(
        ["(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN NULL ELSE now() END)"] * len(rows)
    )
    cursor.execute(
        f"""INSERT INTO workers_callback (tenant_id, family, owner_kind, owner_id, run_id, sequence, event,
                message_id, url, receiver, body, next_at) VALUES {marks}""",  # noqa: S608  only marks
        [value for row in rows for value in row],
    )
    doorbell.ring_callbacks_after_commit()


def _undecided(cursor: CursorWrapper, owner_ids: list[str]) -> set[str]:
    """Which of these have a callback that later ones wait for; it stays undecided until we commit."""
    if not owner_ids:
        return set()
    cursor.execute(
        """SELECT owner_id FROM workers_callback WHERE owner_kind = 'run' AND owner_id = ANY(%s)
               AND state = 'due' AND NOT yields ORDER BY id FOR NO KEY UPDATE""",
        [owner_ids],
    )
    return {row[0] for row in cursor.fetchall()}


def _facts(row: tuple[Any, ...], event: str, sequence: int, by: str) -> CallbackFacts:
    state, reason, message, exit_code, finished_at = row[8], row[9], row[10], row[11], row[16]
    if event == RUNNING and state != State.RUNNING:
        # It began and ended within one write: tell of its start as if that had been told in time.
        state, reason, message, exit_code, finished_at = State.RUNNING, "", "", None, None
    return CallbackFacts(
        run_id=row[0],
        tenant=row[2],
        family=row[3],
        kind=row[4],
        name=row[5],
        owner_id=row[6],
        state=state,
        reason=reason,
        message=message,
        exit_code=exit_code,
        attempt=row[12],
        retries_left=row[13],
        created_at=row[14],
        started_at=row[15],
        finished_at=finished_at,
        by_operator=row[17],
        image=row[18],
        node=row[19],
        host=row[20],
        facts=json.loads(row[21]) if isinstance(row[21], str) else row[21],
        by=by,
        sequence=sequence,
        signed_log=signed_urls.log_url,
    )


def render(facts: CallbackFacts, event: str) -> str:
    """The body as it is stored, signed and sent: the family's, or a minimal one when that cannot be had."""
    try:
        body = families.family(facts.family).callback(facts, event)
        return json.dumps(body, separators=(",", ":"))
    except Exception:
        log.exception("callback.render_failed", run=facts.run_id, family=facts.family, callback_event=event)
        return json.dumps(minimal(facts, event), separators=(",", ":"))


def minimal(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """What can be told of any run."""
    return {
        "event": event,
        "family": facts.family,
        "run": facts.run_id,
        "name": facts.name,
        "state": str(facts.state),
        "reason": facts.reason,
        "message": facts.message,
        "exit_code": facts.exit_code,
        "attempt": facts.attempt,
        "sequence": facts.sequence,
    }


def receiver(url: str) -> str:
    """scheme://host:port: what is served over one connection at a time."""
    try:
        target = addresses.parse(url, credentials=True)
    except InvalidInput:
        return NOWHERE
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{target.scheme}://{host}:{target.port}"


def delivery_trouble(run_id: int | None = None) -> str:
    """Why callbacks that are due do not go out: no deliverer has been heard for a while; "" when all is well.

    ``run_id``: only if this run's are concerned.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT extract(epoch FROM now() - (SELECT max(heartbeat_at) FROM workers_deliverer))::float8
               WHERE NOT EXISTS (SELECT 1 FROM workers_deliverer WHERE NOT detached
                       AND heartbeat_at > now() - %(quiet)s * interval '1 second')
                 AND EXISTS (SELECT 1 FROM workers_callback WHERE state = 'due' AND next_at < now()
                       AND (%(run)s::bigint IS NULL OR run_id = %(run)s))""",
            {"quiet": SILENT_S, "run": run_id},
        )
        row = cursor.fetchone()
    if row is None:
        return ""
    since = "none has ever reported" if row[0] is None else f"none has been heard for {row[0]:.0f} s"
    return f"callbacks are due and nobody delivers them ({since}): start manage.py callbacks"


def message_id() -> str:
    """A new webhook-id."""
    return f"msg_{uuid.uuid4().hex}"


__all__ = [
    "ENDED",
    "NOWHERE",
    "RUNNING",
    "delivery_trouble",
    "insert",
    "message_id",
    "minimal",
    "owe",
    "receiver",
    "render",
]
