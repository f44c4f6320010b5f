"""What a worker writes about running runs beside their state: it still holds them, they started, and more.

Fenced as ``transitions`` is: who writes about a run names its attempt and lease epoch, and where the row says
otherwise nothing is changed and the run is missing from the result. Times are the database's. The functions
run inside the caller's transaction, take many runs at once and lock them in the order of their ids.

Must not import services, claiming, agents or runtimes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from workers.callbacks import outbox
from workers.vocabulary.leases import Lease


def renew(cursor: CursorWrapper, leases: Sequence[Lease]) -> set[int]:
    """Extend leases. Returns the runs that are still ours; the others were taken away."""
    cursor.execute(
        """
        -- the leases that the worker believes to hold
        WITH i AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[]) AS i(id, attempt, epoch)),
        -- those that stand: what is missing was taken away
        locked AS (SELECT r.id FROM workers_run r JOIN i ON r.id = i.id AND r.attempt = i.attempt
            AND r.lease_epoch = i.epoch WHERE r.state = 'RUNNING' ORDER BY r.id FOR UPDATE OF r)
        UPDATE workers_run r SET lease_until = now() + %s * interval '1 second'
        FROM locked WHERE r.id = locked.id RETURNING r.id
        """,
        [
            [lease.run_id for lease in leases],
            [lease.attempt for lease in leases],
            [lease.epoch for lease in leases],
            settings.GANTRY_LEASE_S,
        ],
    )
    return {row[0] for row in cursor.fetchall()}


def held(cursor: CursorWrapper, leases: Sequence[Lease]) -> set[int]:
    """Which of these leases still stand; they cannot be taken away before this transaction ends."""
    cursor.execute(
        """SELECT r.id FROM workers_run r
               JOIN unnest(%s::bigint[], %s::int[], %s::int[]) AS i(id, attempt, epoch)
               ON r.id = i.id AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
           WHERE r.state = 'RUNNING' ORDER BY r.id FOR SHARE OF r""",
        [
            [lease.run_id for lease in leases],
            [lease.attempt for lease in leases],
            [lease.epoch for lease in leases],
        ],
    )
    return {row[0] for row in cursor.fetchall()}


def may_start(cursor: CursorWrapper, leases: Sequence[Lease]) -> dict[Lease, bool | None]:
    """Asked right before attempts are started: does anybody still want them? One look by primary key.

    Of those whose lease stands: None, go ahead; else a cancel was accepted, True: an operator's. It takes no
    lock, because the order of commits decides: a cancel is answered after its commit, and what was committed
    before this look is seen by it. Whoever asks must be told before anything slow is done.
    """
    cursor.execute(
        """SELECT i.id, i.attempt, i.epoch,
               CASE WHEN r.cancel_requested_at IS NOT NULL THEN r.cancelled_by_operator END
           FROM workers_run r JOIN unnest(%s::bigint[], %s::int[], %s::int[]) AS i(id, attempt, epoch)
               ON r.id = i.id AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
           WHERE r.state = 'RUNNING'""",
        [
            [lease.run_id for lease in leases],
            [lease.attempt for lease in leases],
            [lease.epoch for lease in leases],
        ],
    )
    return {Lease(run_id, attempt, epoch): by for run_id, attempt, epoch, by in cursor.fetchall()}


def clear_suspicion(cursor: CursorWrapper, node_id: int) -> None:
    """The worker has lived long enough: none of its runs is what killed the one before."""
    cursor.execute(
        "UPDATE workers_run SET crashes = 0 WHERE node_id = %s AND state = 'RUNNING' AND crashes > 0",
        [node_id],
    )


def told(cursor: CursorWrapper, items: Sequence[tuple[Lease, str]], *, started: bool = False) -> set[int]:
    """Say what is being done for attempts that have not started yet (``started``: that have). Not a change of
    state."""
    latest = dict(items)
    cursor.execute(
        """
        -- what is being done, one row a run
        WITH i AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::text[])
            AS i(id, attempt, epoch, message)),
        -- only those still held under this lease, the fence, and not started yet, or started
        locked AS (SELECT r.id, i.message FROM workers_run r JOIN i ON r.id = i.id
            AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
            WHERE r.state = 'RUNNING' AND (r.started_at IS NOT NULL) = %s ORDER BY r.id FOR UPDATE OF r)
        UPDATE workers_run r SET message = l.message FROM locked l WHERE r.id = l.id RETURNING r.id
        """,
        [
            [lease.run_id for lease in latest],
            [lease.attempt for lease in latest],
            [lease.epoch for lease in latest],
            [message.replace("\0", "") for message in latest.values()],
            started,
        ],
    )
    return {row[0] for row in cursor.fetchall()}


def phase(cursor: CursorWrapper, items: Sequence[tuple[Lease, str]], *, by: str) -> set[int]:
    """Leave an event for something that a running attempt begins or has done. Not a change of state."""
    cursor.execute(
        """
        -- what is begun or done, in its order
        WITH i AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::text[])
            WITH ORDINALITY AS i(id, attempt, epoch, note, place)),
        -- only those still held under this lease: the fence
        held AS (SELECT r.id, r.attempt, i.note, i.place FROM workers_run r JOIN i ON r.id = i.id
            AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
            WHERE r.state = 'RUNNING' FOR SHARE OF r)
        INSERT INTO workers_runevent (run_id, from_state, to_state, attempt, by, note)
        SELECT id, 'RUNNING', 'RUNNING', attempt, %s, note FROM held ORDER BY place RETURNING run_id
        """,
        [
            [lease.run_id for lease, _ in items],
            [lease.attempt for lease, _ in items],
            [lease.epoch for lease, _ in items],
            [note for _, note in items],
            by,
        ],
    )
    return {row[0] for row in cursor.fetchall()}


def started(cursor: CursorWrapper, items: Sequence[tuple[Lease, float, str]]) -> set[int]:
    """Record that attempts really started, ``ago`` seconds before now. Not a change of state."""
    cursor.execute(
        """
        -- what the worker reports, one row a run
        WITH i AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::float8[], %s::text[])
            AS i(id, attempt, epoch, ago, message)),
        -- only those still held under this lease: the fence; the first to tell of a start owes its callback
        locked AS (SELECT r.id, i.ago, i.message, r.started_at IS NULL AND r.callback_url <> '' AS owes
            FROM workers_run r JOIN i ON r.id = i.id AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
            WHERE r.state = 'RUNNING' ORDER BY r.id FOR UPDATE OF r),
        -- when it really started: what was told first stands
        moved AS (UPDATE workers_run r SET message = l.message,
            started_at = coalesce(r.started_at, now() - l.ago * interval '1 second')
            FROM locked l WHERE r.id = l.id RETURNING r.id, r.attempt, r.started_at, l.owes)
        UPDATE workers_attempt a SET started_at = m.started_at
        FROM moved m WHERE a.run_id = m.id AND a.number = m.attempt RETURNING a.run_id, m.owes
        """,
        [
            [lease.run_id for lease, _, _ in items],
            [lease.attempt for lease, _, _ in items],
            [lease.epoch for lease, _, _ in items],
            [ago for _, ago, _ in items],
            [message for _, _, message in items],
        ],
    )
    rows = cursor.fetchall()
    outbox.owe(cursor, [(run_id, outbox.RUNNING) for run_id, owes in rows if owes], by="node")
    return {row[0] for row in rows}


def tell(cursor: CursorWrapper, items: Sequence[tuple[Lease, Mapping[str, Any]]]) -> set[int]:
    """Add to the facts of running attempts what their runtime found out. Not a change of state."""
    cursor.execute(
        """
        -- what the runtime found out, one row a run
        WITH i AS (SELECT * FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::text[])
            AS i(id, attempt, epoch, facts)),
        -- only those still held under this lease: the fence
        locked AS (SELECT r.id, r.attempt, i.facts FROM workers_run r JOIN i ON r.id = i.id
            AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
            WHERE r.state = 'RUNNING' ORDER BY r.id FOR UPDATE OF r)
        UPDATE workers_attempt a SET facts = a.facts || l.facts::jsonb
        FROM locked l WHERE a.run_id = l.id AND a.number = l.attempt RETURNING a.run_id
        """,
        [
            [lease.run_id for lease, _ in items],
            [lease.attempt for lease, _ in items],
            [lease.epoch for lease, _ in items],
            [json.dumps(dict(facts)) for _, facts in items],
        ],
    )
    return {row[0] for row in cursor.fetchall()}
