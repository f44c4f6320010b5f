"""Search for what is left on a node without a run that owns it, and its removal.

An attempt is an orphan when the database does not say that it runs here: closed meanwhile, taken elsewhere,
or its result was stored and the worker died before cleaning up: it goes at once. What belongs to a run that
the database does not know at all (it was restored from a backup?) goes only after a grace period. Must not
import the agent.
"""

from __future__ import annotations

import time

import structlog
from django.conf import settings
from django.db import connection

from workers.runtimes.base import Runtime
from workers.vocabulary.crashpoints import step

log = structlog.get_logger(__name__)

#: (kind, run, attempt) of what nobody knows -> when it was first seen, by the monotonic clock.
_unknown_since: dict[tuple[str, int, int], float] = {}


def sweep(runtime: Runtime, node_id: int) -> int:
    """Kill and remove the orphans of one runtime; returns how many.

    The folders are listed before the database is asked: what is claimed in between is not yet listed.
    """
    there = runtime.attempts()
    if not there:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT id, attempt, coalesce(node_id = %s AND state = 'RUNNING', false) FROM workers_run
               WHERE id = ANY(%s)""",
            [node_id, [run_id for run_id, _ in there]],
        )
        known = {run_id: (attempt, here) for run_id, attempt, here in cursor.fetchall()}
    orphans = []
    for run_id, attempt in there:
        if run_id in known:
            if known[run_id] != (attempt, True):
                orphans.append((run_id, attempt))
        elif _unknown_for(runtime.kind, run_id, attempt) >= settings.GANTRY_ORPHAN_GRACE_S:
            orphans.append((run_id, attempt))
    for run_id, attempt in orphans:
        log.info("orphan.removed", run=run_id, attempt=attempt, kind=runtime.kind)
        step("agent.before_orphan_kill")
        runtime.kill_orphan(run_id, attempt)
        step("agent.after_orphan_kill")
        runtime.cleanup(run_id, attempt)
        _unknown_since.pop((runtime.kind, run_id, attempt), None)
    return len(orphans)


def _unknown_for(kind: str, run_id: int, attempt: int) -> float:
    """Seconds since this worker first saw something of a run that the database does not know."""
    now = time.monotonic()
    return now - _unknown_since.setdefault((kind, run_id, attempt), now)
