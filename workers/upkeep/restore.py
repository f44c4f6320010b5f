"""After the database was restored from a backup: what it cannot know any more is made harmless.

Work went on after the backup. So ids given since must not be given again, runs that wait in the backup may
run on a node now, runs that run in it may have ended, and workers hold leases that it never gave. The rule:
nothing of a node is touched until an operator has said, by this step, that this database is the truth from
now on; from then on what it does not know is nobody's, and is killed. docs/operations.md has the drill.
Must not import services, runtimes or the worker's side.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

#: More ids a second than one installation can give (docs/performance.md: 1,080), and the least gap.
_IDS_PER_S = 2_000
_LEAST_GAP = 1_000_000
#: More starts of a worker, tries of a run and adoptions than there can have been since the backup.
_JUMP = 1_000


@dataclass(frozen=True)
class Restored:
    """What was done: seconds of work that the backup misses, ids left out, runs by what became of them."""

    lost_s: float
    gap: int
    nodes: int
    running: int
    held: int
    hold_s: float


def after_restore(hold_s: float | None = None) -> Restored:
    """Make a restored database safe to work on; run once, before anything else uses it. May be repeated.

    ``hold_s``: how long waiting runs are kept back, so that none starts while its earlier start may still run
    somewhere; by default as long as a node that is cut off may go on (GANTRY_NODE_LOST_AFTER_S).
    """
    hold = float(settings.GANTRY_NODE_LOST_AFTER_S if hold_s is None else hold_s)
    with transaction.atomic(), connection.cursor() as cursor:
        lost_s = _lost_s(cursor)
        gap = max(_LEAST_GAP, int(lost_s * _IDS_PER_S))
        _leave_out_ids(cursor, gap)
        # Leases given since are older than these. Another try may be one too many: it may be done already.
        cursor.execute(
            """UPDATE workers_run SET lease_epoch = lease_epoch + %s, retries_left = 0,
                   lease_until = now() + %s * interval '1 second' WHERE state = 'RUNNING'""",
            [_JUMP, settings.GANTRY_LEASE_S],
        )
        running = cursor.rowcount
        # An attempt of another number has another name on a node: what still runs there is not taken for it.
        cursor.execute(
            """UPDATE workers_run SET lease_epoch = lease_epoch + %(jump)s, attempt = attempt + %(jump)s,
                   not_before = greatest(not_before, now() + %(hold)s * interval '1 second'),
                   expires_at = greatest(expires_at, now() + (%(hold)s + 3600) * interval '1 second'),
                   message = 'Waits since the database was restored, until no node can still run it'
               WHERE state = 'PENDING'""",
            {"jump": _JUMP, "hold": hold},
        )
        held = cursor.rowcount
        # Every worker has to register anew. A node that does not come back is lost when that time is over.
        cursor.execute(
            """UPDATE workers_node SET incarnation = incarnation + %s, heartbeat_at = now(), detached = true,
                   reserved_for_id = NULL""",
            [_JUMP],
        )
        nodes = cursor.rowcount
        cursor.execute("DELETE FROM workers_noderequest WHERE answered_at IS NULL")
        cursor.execute("UPDATE workers_installation SET generation = gen_random_uuid(), restored_at = now()")
    return Restored(lost_s, gap, nodes, running, held, hold)


def _lost_s(cursor: CursorWrapper) -> float:
    """Seconds since the last thing that this database knows of: nodes report every few seconds."""
    cursor.execute(
        """SELECT coalesce(extract(epoch FROM clock_timestamp() - greatest(
               (SELECT max(heartbeat_at) FROM workers_node),
               (SELECT created_at FROM workers_run ORDER BY id DESC LIMIT 1),
               (SELECT at FROM workers_runevent ORDER BY id DESC LIMIT 1))), 0)::float8"""
    )
    return max(0.0, float(cursor.fetchone()[0]))


def _leave_out_ids(cursor: CursorWrapper, gap: int) -> None:
    """Ids given since the backup are known to clients and nodes: go on well behind them."""
    cursor.execute(
        """SELECT setval(format('%%I.%%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + %s)
           FROM pg_sequences WHERE schemaname = current_schema() AND data_type = 'bigint'::regtype""",
        [gap],
    )
