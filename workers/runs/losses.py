"""Closing attempts whose node fell silent or was removed.

Safe because every node's guard has killed its work before GANTRY_NODE_LOST_AFTER_S is over; an operator's
forced removal takes that responsibility upon the operator. Must not import services, claiming or runtimes.
"""

from __future__ import annotations

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.runs import transitions
from workers.runs.retries import backoff_s
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import Reason, State


def close_node(node_id: int, message: str, *, removed: bool, limit: int = 500) -> int:
    """Close the running attempts of a node that will not report them any more; returns how many.

    Runs that are never given up (``node_lost_after_s`` 0) are closed only when the node was removed. Unless
    it was removed, a node that has been heard in the meantime keeps its runs.
    """
    closed = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                """SELECT id, attempt, lease_epoch, started_at IS NOT NULL, cancel_requested_at IS NOT NULL
                   FROM workers_run WHERE node_id = %s AND state = 'RUNNING'
                       AND (%s OR coalesce(node_lost_after_s, -1) <> 0)
                   ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED""",
                [node_id, removed, limit],
            )
            rows = cursor.fetchall()
            if not removed and not _still_silent(cursor, node_id):
                return closed
            outcomes = []
            for run_id, attempt, epoch, has_started, cancelled in rows:
                reason = (
                    Reason.NODE_GONE if removed else Reason.UNREACHABLE if has_started else Reason.DROPPED
                )
                outcomes.append(
                    Outcome(
                        Lease(run_id, attempt, epoch),
                        State.CANCELLED if cancelled else State.FAILED,
                        reason,
                        message,
                        backoff_s=backoff_s(reason, attempt),
                    )
                )
            by = "operator" if removed else "reconciler"
            again = transitions.retry(cursor, outcomes, by=by)
            transitions.finish(cursor, [item for item in outcomes if item.lease.run_id not in again], by=by)
            step("reconciler.before_close_commit")
        step("reconciler.after_close_commit")
        closed += len(rows)
        if len(rows) < limit:
            return closed


def _still_silent(cursor: CursorWrapper, node_id: int) -> bool:
    """Is it silent still, and until this transaction ends? Its next heartbeat waits for our commit."""
    cursor.execute(
        """SELECT heartbeat_at < now() - %s * interval '1 second' FROM workers_node
           WHERE id = %s FOR NO KEY UPDATE""",
        [settings.GANTRY_NODE_LOST_AFTER_S, node_id],
    )
    return bool(cursor.fetchone()[0])
