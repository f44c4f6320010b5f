"""What nobody reports any more: batches whose run is over, cancelled jobs, listings that came to nothing.

In which order reports and this come does not matter: a report is entered only under its run's lease, which
ended when the run did.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.messages import doorbell
from workers.vocabulary.duties import one_by_one
from workers.vocabulary.states import Reason, State
from workqueue.book import ending, stopping
from workqueue.models import Job

log = structlog.get_logger(__name__)

#: Batches and jobs of one look, elements of one transaction, transactions of a job in one look.
MOST: Final = 500
PIECE: Final = stopping.PIECE
PIECES: Final = 20
#: Elements wait that long when their run failed and had begun none of them, in seconds (``ending.give_up``).
PAUSE_S: Final = 30.0
#: Parts that could not be swept wait so long.
SWEEP_S: Final = 3600.0

_OVER: Final = """
    SELECT b.id, b.job_id FROM workqueue_batch b LEFT JOIN workers_run r ON r.id = b.run_id
    WHERE b.closed_at IS NULL AND (b.lease_until < now()
        OR (b.lease_until IS NULL AND (r.id IS NULL OR r.finished_at IS NOT NULL)))
    ORDER BY b.id LIMIT %s
"""
#: The same of one batch, under its job's lock.
_BATCH: Final = """
    SELECT b.run_id, b.holder, b.lease_until IS NOT NULL, r.state, r.reason, r.message,
        r.started_at IS NOT NULL, coalesce(n.attributes ->> 'hostname', n.name, b.holder)
    FROM workqueue_batch b LEFT JOIN workers_run r ON r.id = b.run_id
    LEFT JOIN workers_node n ON n.id = r.node_id
    WHERE b.id = %s AND b.closed_at IS NULL AND (%s OR b.lease_until < now()
        OR (b.lease_until IS NULL AND (r.id IS NULL OR r.finished_at IS NOT NULL)))
"""
#: Jobs to bring to an end: cancelled ones, what a listing left, and what has nothing open.
_UNDONE: Final = """
    SELECT id FROM workqueue_job j WHERE finished_at IS NULL AND (cancel_requested_at IS NOT NULL
        OR ((elements <> num_new + num_submitted + num_running + num_done + num_failed
                OR num_new + num_submitted + num_running = 0)
            AND NOT EXISTS (SELECT 1 FROM workqueue_batch b WHERE b.job_id = j.id AND b.closed_at IS NULL)))
    ORDER BY id LIMIT %s
"""
_PULLED: Final = """
    SELECT id FROM workqueue_batch WHERE job_id = %s AND closed_at IS NULL AND lease_until IS NOT NULL
"""
_SWEPT: Final = """
    UPDATE workqueue_element SET batch_id = NULL,
        part_attempt = CASE WHEN %(done)s THEN NULL ELSE part_attempt END,
        not_before = CASE WHEN %(done)s THEN NULL ELSE now() + %(wait)s * interval '1 second' END
    WHERE job_id = %(job)s AND batch_id = %(batch)s AND status = 2
"""
#: Of a run that ended so nothing is to blame but a node or an operator.
_PASSING: Final = frozenset(
    {Reason.EXPIRED, Reason.DROPPED, Reason.NODE_GONE, Reason.UNREACHABLE, Reason.OPERATOR}
)


def look() -> dict[str, int]:
    """One bounded round; returns {what: how many}."""
    with connection.cursor() as cursor:
        cursor.execute(_OVER, [MOST])
        over = cursor.fetchall()
    closed = one_by_one("a batch whose run is over", over, lambda row: _settle(*row))
    with connection.cursor() as cursor:
        cursor.execute(_UNDONE, [MOST])
        undone = [job_id for (job_id,) in cursor.fetchall()]
    finished = one_by_one("the end of a job", undone, _bring_to_an_end)
    return {"batches_closed": sum(closed.values()), "jobs_finished": sum(finished.values())}


def _settle(batch_id: int, job_id: int) -> bool:
    """Close a batch whose run is over; False when somebody else has."""
    with transaction.atomic(), connection.cursor() as cursor:
        job = ending.lock(job_id)
        return job is not None and close(cursor, job, batch_id)


def close(cursor: CursorWrapper, job: Job, batch_id: int, *, by_force: bool = False) -> bool:
    """Take back what a batch still has and close it, if nobody reports for it any more (or ``by_force``: a
    pull worker's batch of a cancelled job). The job is locked."""
    cursor.execute(_BATCH, [batch_id, by_force])
    row = cursor.fetchone()
    if row is None:
        return False
    run_id, holder, pulled, state, reason, message, started, host = row
    code, words = _why(job, pulled, holder, run_id, state, reason, message)
    wait = 0.0 if pulled or state is None or reason in _PASSING else PAUSE_S
    back = ending.give_up(
        cursor,
        job,
        batch_id,
        ending.Holder(run_id, host),
        (code, words),
        wait_s=wait,
        begun=started or pulled,
    )
    done = state == State.SUCCEEDED and started  # one that found nothing to do has swept nothing
    cursor.execute(_SWEPT, {"job": job.pk, "batch": batch_id, "done": done, "wait": SWEEP_S})
    cursor.execute("UPDATE workqueue_batch SET closed_at = clock_timestamp() WHERE id = %s", [batch_id])
    if back:
        log.info("book.came_back", job=job.pk, batch=batch_id, run=run_id, elements=back, why=words)
        if state == State.FAILED:
            Job.objects.filter(pk=job.pk).update(waiting_for=f"run {run_id} failed: {message}"[:2000])
    ending.finish(cursor, job)
    doorbell.ring_duties_after_commit()
    return True


def _why(
    job: Job, pulled: bool, holder: str, run_id: Any, state: Any, reason: Any, message: Any
) -> tuple[int, str]:
    """Code and words for an attempt that nobody told the end of."""
    if job.cancel_requested_at is not None:
        return ending.CANCELLED, f"Cancelled by {'an operator' if job.cancelled_by_operator else 'its user'}"
    if pulled:
        return ending.LOST, f"Lost: worker {holder} did not report in time"
    if state is None:
        return ending.LOST, f"Lost: run {run_id} is gone"
    said = f": {message}" if message else ""
    if state == State.CANCELLED:
        return ending.CANCELLED, f"Cancelled: run {run_id} was stopped{said}"
    if reason == Reason.TIMEOUT:
        return ending.TIMED_OUT, f"Timed out with run {run_id}{said}"
    if state == State.SUCCEEDED:
        return ending.LOST, f"Lost: run {run_id} ended without a word about it{said}"
    return ending.LOST, f"Lost with run {run_id}{said}"


def _bring_to_an_end(job_id: int) -> bool:
    """Pieces of what is left of a job, each in a transaction; True when it has ended by it."""
    job = Job.objects.filter(pk=job_id).first()
    if job is not None and job.cancel_requested_at is not None:
        stopping.stop_runs(job)
    for _ in range(PIECES):
        with transaction.atomic(), connection.cursor() as cursor:
            job = ending.lock(job_id)
            if job is None or job.finished_at is not None:
                return False
            if job.cancel_requested_at is not None:
                cursor.execute(_PULLED, [job_id])
                for (batch_id,) in cursor.fetchall():
                    close(cursor, job, batch_id, by_force=True)
            left = _piece(cursor, job)
            if ending.finish(cursor, job):
                return True
        if not left:
            return False
    doorbell.ring_duties()
    return False


def _piece(cursor: CursorWrapper, job: Job) -> int:
    """Drop or fail some elements; how many."""
    if job.elements != ending.counted(job):
        cursor.execute(
            """SELECT EXISTS (SELECT 1 FROM workqueue_element
                   WHERE job_id = %s AND number = 0 AND batch_id IS NOT NULL)""",
            [job.pk],
        )
        if cursor.fetchone()[0]:
            return 0  # the listing goes on
        return ending.drop_found(cursor, job, PIECE)
    return ending.fail_waiting(cursor, job, PIECE) if job.cancel_requested_at is not None else 0
