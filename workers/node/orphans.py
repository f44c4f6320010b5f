"""Search for what is left on a node without a run that owns it, and its removal.

An attempt is an orphan when the database does not say that it runs here: closed meanwhile, taken elsewhere,
or its result was stored and the worker died before cleaning up: it goes at once. What belongs to a run that
the database does not know at all (it was restored from a backup?) goes only after a grace period. One that
cannot be removed (``leftovers``), or a runtime that cannot be searched, stops none of the others. Must not
import the agent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from workers.node.leftovers import Leftovers
from workers.runtimes.base import Runtime
from workers.vocabulary.crashpoints import step

log = structlog.get_logger(__name__)

#: (kind, run, attempt) of what nobody knows -> when it was first seen, by the monotonic clock.
_unknown_since: dict[tuple[str, int, int], float] = {}


def sweep_all(runtimes: Iterable[Runtime], node_id: int, leftovers: Leftovers) -> None:
    """``sweep`` of each. Raises DatabaseError."""
    for runtime in runtimes:
        try:
            sweep(runtime, node_id, leftovers)
        except DatabaseError:
            raise
        except Exception:
            log.exception("orphan.not_searched", kind=runtime.kind, meaning="what is left there stays")


def sweep(runtime: Runtime, node_id: int, leftovers: Leftovers) -> int:
    """Kill and remove the orphans of one runtime; returns how many were to go.

    The folders are listed before the database is asked: what is claimed in between is not yet listed.
    """
    there = runtime.attempts()
    leftovers.only(runtime.kind, there)
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
    due = [key for key in orphans if leftovers.due((runtime.kind, *key))]
    for run_id, attempt in due:
        with leftovers.removing((runtime.kind, run_id, attempt)):
            step("agent.before_orphan_kill")
            runtime.kill_orphan(run_id, attempt)
            step("agent.after_orphan_kill")
            runtime.cleanup(run_id, attempt)
            log.info("orphan.removed", run=run_id, attempt=attempt, kind=runtime.kind)
            _unknown_since.pop((runtime.kind, run_id, attempt), None)
    return len(due)


def _unknown_for(kind: str, run_id: int, attempt: int) -> float:
    """Seconds since this worker first saw something of a run that the database does not know."""
    now = time.monotonic()
    return now - _unknown_since.setdefault((kind, run_id, attempt), now)
