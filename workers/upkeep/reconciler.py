"""What nobody else does: expired waits, lost nodes, retention. Global and idempotent; runs in every worker.

One of them does it at a time (advisory lock); two at once would be harmless. Must not import services,
claiming or runtimes.
"""

from __future__ import annotations

import time
from datetime import datetime

import structlog
from django.conf import settings
from django.db import connection, transaction

from workers.runs import losses, transitions
from workers.tenants import begun, limits
from workers.upkeep import retention
from workers.vocabulary.crashpoints import step
from workers.vocabulary.duties import one_by_one

log = structlog.get_logger(__name__)

#: Key of the advisory lock: "gantry" in ASCII.
_LOCK = 0x67616E747279
_BATCH = 500
#: Heartbeats that a node may still send after it looks lost, before it is given up.
_LAST_CHANCES = 3

#: Node id -> (its last heartbeat, since when this process has seen no newer one, in monotonic seconds).
_unheard: dict[int, tuple[datetime, float]] = {}


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
    done["folded"] = limits.fold(_BATCH)
    done["unanswered"] = begun.take_over(begun.UNANSWERED_S, _BATCH)
    if any(done.values()):
        log.info("reconciled", **{key: value for key, value in done.items() if value})
    return done


def _close_lost_nodes() -> int:
    """Close the attempts on nodes that have been silent for too long.

    One look is not believed: when the database's clock jumps ahead, every heartbeat is old for a moment.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT n.id, n.name, n.mode = 'removed', extract(epoch FROM now() - n.heartbeat_at)::int,
                   n.heartbeat_at
               FROM workers_node n
               WHERE n.slots_used > 0 AND n.heartbeat_at < now() - %s * interval '1 second'
                 AND EXISTS (SELECT 1 FROM workers_run r WHERE r.node_id = n.id AND r.state = 'RUNNING'
                             AND (n.mode = 'removed' OR coalesce(r.node_lost_after_s, -1) <> 0))""",
            [settings.GANTRY_NODE_LOST_AFTER_S],
        )
        lost = cursor.fetchall()
    for gone in _unheard.keys() - {row[0] for row in lost}:
        del _unheard[gone]
    named = {
        name: (node_id, removed, silent)
        for node_id, name, removed, silent, heartbeat in lost
        if _still_unheard(node_id, heartbeat)
    }
    return sum(one_by_one("a lost node", named, lambda name: _close(name, *named[name])).values())


def _close(name: str, node_id: int, removed: bool, silent: int) -> int:
    step("reconciler.before_close")
    message = f"node {name} was removed" if removed else f"node {name} has been silent for {silent} s"
    closed = losses.close_node(node_id, message, removed=removed)
    log.warning("node.lost", node=name, silent_s=silent, closed=closed)
    return closed


def _still_unheard(node_id: int, heartbeat: datetime) -> bool:
    """Has this heartbeat been the node's last one for several more of them, counted by our own clock?"""
    now = time.monotonic()
    seen, since = _unheard.get(node_id, (None, now))
    if seen != heartbeat:
        _unheard[node_id] = (heartbeat, now)
        return False
    patience: float = _LAST_CHANCES * settings.GANTRY_HEARTBEAT_S
    return now - since >= patience
