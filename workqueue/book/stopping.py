"""Cancel a job, and try what failed of one again."""

from __future__ import annotations

from typing import Final

from django.db import connection, transaction
from django.db.models.functions import Now

from workers import services
from workers.messages import doorbell
from workers.vocabulary.errors import Conflict
from workqueue.book import ending
from workqueue.models import Batch, Job

#: Elements of one transaction.
PIECE: Final = 10_000
MOST_TRIES: Final = 32_000

_AGAIN: Final = """
    UPDATE workqueue_element SET status = 3, not_before = NULL, batch_id = NULL,
        max_tries = least(attempts + %(tries)s, %(most)s), changed_at = now()
    WHERE job_id = %(job)s AND number = ANY(ARRAY(SELECT number FROM workqueue_element
        WHERE job_id = %(job)s AND status = 2 AND number >= %(from)s
        ORDER BY number LIMIT %(limit)s))
    RETURNING number
"""


def cancel(job: Job, *, operator: bool = False) -> bool:
    """Nothing more of the job is handed out, what runs is stopped; False when it has ended or is gone.

    Elements that nobody has are FAILED at once as far as they are few, the rest by ``settling``.
    """
    with transaction.atomic():
        locked = ending.lock(job.pk)
        if locked is None or locked.finished_at is not None:
            return False
        if locked.cancel_requested_at is None:
            Job.objects.filter(pk=job.pk).update(
                cancel_requested_at=Now(), changed_at=Now(), cancelled_by_operator=operator
            )
        doorbell.ring_duties_after_commit()
    stop_runs(job)
    with transaction.atomic(), connection.cursor() as cursor:
        locked = ending.lock(job.pk)
        if locked is not None and locked.cancel_requested_at and locked.elements == ending.counted(locked):
            ending.fail_waiting(cursor, locked, PIECE)
            ending.finish(cursor, locked)
    return True


def stop_runs(job: Job) -> int:
    """Cancel the runs of a job's open batches; outside of the job's lock: reports take it after theirs."""
    runs = Batch.objects.filter(job=job, closed_at=None, run__cancel_requested_at=None, run__finished_at=None)
    ids = list(runs.exclude(run=None).values_list("run_id", flat=True))
    return services.cancel_all(job.tenant_id, filter(None, ids)) if ids else 0


def retry(job: Job) -> int:
    """Try the elements that failed once more, each as often as the job says; returns how many there are.

    Conflict while the job is being cancelled. A job that had ended, also by a cancel, is open again.
    """
    total, begin = 0, 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            locked = ending.lock(job.pk)
            if locked is None:
                return total
            if locked.cancel_requested_at is not None and locked.finished_at is None:
                raise Conflict(f"job {job.pk} is being cancelled: wait until it has ended, then retry it")
            cursor.execute(
                _AGAIN,
                {
                    "job": job.pk,
                    "tries": locked.max_tries,
                    "most": MOST_TRIES,
                    "from": begin,
                    "limit": PIECE,
                },
            )
            numbers = [number for (number,) in cursor.fetchall()]
            if not numbers:
                return total
            Job.objects.filter(pk=job.pk).update(
                finished_at=None, cancel_requested_at=None, cancelled_by_operator=False
            )
            ending.count(locked, {(2, 3): len(numbers)})
            doorbell.ring_duties_after_commit()
        total += len(numbers)
        begin = max(numbers) + 1
