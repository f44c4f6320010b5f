"""The end of a job, asked for (a placeholder of this branch)."""

from __future__ import annotations

from django.db.models.functions import Now

from workqueue.models import Element, Job
from workqueue.models.jobs import Status


def cancel(job: Job, *, operator: bool) -> bool:
    """Everything FAILED."""
    if job.finished_at is not None:
        return False
    failed = Element.objects.filter(job=job).exclude(status=Status.DONE).update(status=Status.FAILED)
    Job.objects.filter(pk=job.pk).update(
        num_new=0, num_submitted=0, num_running=0, num_failed=failed, finished_at=Now(),
        cancel_requested_at=Now(), cancelled_by_operator=operator,
    )  # fmt: skip
    return True


def retry(job: Job) -> int:
    """What FAILED goes again."""
    again = Element.objects.filter(job=job, status=Status.FAILED).update(status=Status.SUBMITTED)
    Job.objects.filter(pk=job.pk).update(num_failed=0, num_submitted=again, finished_at=None)
    return again
