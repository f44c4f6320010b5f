"""What nobody else does: expired waits, lost nodes, retention. Global and idempotent; runs in every worker.

One of them does it at a time (advisory lock); two at once would be harmless. Must not import services,
claiming or runtimes.
"""

from __future__ import annotations

import structlog
from django.conf import settings
from django.db import connection, transaction

from workers import losses, retention, transitions

log = structlog.get_logger(__name__)

#: Key of the advisory lock: "gantry" in ASCII.
_LOCK = 0x67616E747279
_BATCH = 500


def reconcile_once() -> dict[str, int]:
    """One round; returns what was done. Does nothing while another reconciler holds the lock."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return {}
        expired = len(transitions.expire(cursor, _BATCH, by="reconciler"))
    done = {"expired": expired, "lost": _close_lost_nodes()}
    for what, count in retention.prune_once(_BATCH).items():
        done[f"pruned_{what}"] = count
    if any(done.values()):
        log.info("reconciled", **{key: value for key, value in done.items() if value})
    return done


def _close_lost_nodes() -> int:
    """Close the attempts on nodes that have been silent for too long."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT n.id, n.name, n.mode = 'removed', extract(epoch FROM now() - n.heartbeat_at)::int
               FROM workers_node n
               WHERE n.slots_used > 0 AND n.heartbeat_at < now() - %s * interval '1 second'
                 AND EXISTS (SELECT 1 FROM workers_run r WHERE r.node_id = n.id AND r.state = 'RUNNING'
                             AND (n.mode = 'removed' OR coalesce(r.node_lost_after_s, -1) <> 0))""",
            [settings.GANTRY_NODE_LOST_AFTER_S],
        )
        lost = cursor.fetchall()
    closed = 0
    for node_id, name, removed, silent in lost:
        message = f"node {name} was removed" if removed else f"node {name} has been silent for {silent} s"
        closed += losses.close_node(node_id, message, removed=removed)
        log.warning("node.lost", node=name, silent_s=silent, closed=closed)
    return closed
