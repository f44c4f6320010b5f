"""Search for what is left on a node without a run that owns it, and its removal.

An attempt is an orphan when the database does not say that it runs here: closed meanwhile, taken elsewhere,
or its result was stored and the worker died before cleaning up. Must not import the agent.
"""

from __future__ import annotations

import structlog
from django.db import connection

from workers.crashpoints import step
from workers.runtimes.base import Runtime

log = structlog.get_logger(__name__)


def sweep(runtime: Runtime, node_id: int) -> int:
    """Kill and remove the orphans of one runtime; returns how many.

    The folders are listed before the database is asked: what is claimed in between is not yet listed.
    """
    there = runtime.attempts()
    if not there:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, attempt FROM workers_run WHERE id = ANY(%s) AND node_id = %s AND state = 'RUNNING'",
            [[run_id for run_id, _ in there], node_id],
        )
        owned = set(cursor.fetchall())
    orphans = [item for item in there if item not in owned]
    for run_id, attempt in orphans:
        log.info("orphan.removed", run=run_id, attempt=attempt, kind=runtime.kind)
        step("agent.before_orphan_kill")
        runtime.kill_orphan(run_id, attempt)
        step("agent.after_orphan_kill")
        runtime.cleanup(run_id, attempt)
    return len(orphans)
