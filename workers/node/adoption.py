"""Adoption: a node takes over its own runs, those of an earlier worker or what nobody in this one watches.

When workers keep dying, one of the runs is suspected of it and stopped. Must not import the agent or Celery.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import structlog
from django.conf import settings
from django.db import connection, transaction

from workers.runs import transitions
from workers.runtimes.base import Runtime
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import ClaimedRun

log = structlog.get_logger(__name__)


def adopt(
    node_id: int, runtimes: Mapping[str, Runtime], run_ids: list[int] | None, *, crashed: bool
) -> list[tuple[ClaimedRun, bool]]:
    """``transitions.adopt``, committed: the runs, each with whether it is the one to be stopped."""
    with transaction.atomic(), connection.cursor() as cursor:
        runs = transitions.adopt(cursor, node_id, run_ids, crashed=crashed)
        if culprit := suspect(runs):
            # Before anybody can see that this worker is here: it may be the next one to be killed.
            log.error("run.suspect", run=culprit.lease.run_id, crashes=culprit.crashes)
            with contextlib.suppress(OSError):  # its watcher will try again
                runtimes[culprit.kind].stop(culprit, "crashes", culprit.grace_s)
        step("agent.before_adopt_commit")
    step("agent.after_adopt_commit")
    connection.close()
    if runs:
        log.info("agent.adopted", runs=len(runs), after_crash=crashed)
    return [(run, run is culprit) for run in runs]


def suspect(runs: list[ClaimedRun]) -> ClaimedRun | None:
    """The run to stop when workers keep dying: of those that saw the most deaths the one that started last.

    Who was there at every death comes before who came in between. Among equals the last one to start is the
    likelier culprit: with the others workers lived longer. One at a time, so that bystanders go on as soon as
    the culprit is gone.
    """
    most = max((run.crashes for run in runs), default=0)
    if most < settings.GANTRY_MAX_CRASHES:
        return None
    suspects = [run for run in runs if run.crashes == most]
    return min(suspects, key=lambda run: (run.started_ago or 0.0, -run.lease.run_id))
