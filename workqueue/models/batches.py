"""Batches: elements that were handed out together, to a run of ours or to a pull worker."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models import Run
from workqueue.models.jobs import Job


class Batch(models.Model):
    """Open until each of its elements has ended or was given back."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE)
    #: Of ours: the run that does it. No constraint: retention deletes runs first.
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, db_constraint=False, db_index=False)
    #: Of a pull worker's: until when its reports are taken, and who it is.
    lease_until = models.DateTimeField(null=True)
    holder = models.TextField(blank=True, db_default="")
    #: Which endpoint of the source's and of the target's site it goes to (index), told when it began.
    src_endpoint = models.SmallIntegerField(null=True)
    dst_endpoint = models.SmallIntegerField(null=True)
    #: Sites whose streams it takes, for counting.
    source_id = models.BigIntegerField()
    target_id = models.BigIntegerField(null=True)
    streams = models.SmallIntegerField(db_default=1)
    #: Of its elements.
    phase = models.IntegerField(db_default=0)
    #: An element's end laid the blame on that side's endpoint: what was not begun goes to another one, too.
    src_blamed = models.BooleanField(db_default=False)
    dst_blamed = models.BooleanField(db_default=False)
    #: Up to which byte the report of attempt ``reported_attempt`` is in the books.
    reported = models.BigIntegerField(db_default=0)
    reported_attempt = models.IntegerField(db_default=0)
    created_at = models.DateTimeField(db_default=Now())
    #: By the clock at that moment: whatever ended under it did so before, and after it what others had next.
    closed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "batches"
        indexes = [
            models.Index(fields=["source_id", "target_id"], condition=Q(closed_at=None), name="batch_open"),
            models.Index(fields=["run"], condition=Q(run__isnull=False), name="batch_of_run"),
            models.Index(
                fields=["lease_until"],
                condition=Q(closed_at=None, lease_until__isnull=False),
                name="batch_leased",
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of job {self.job_id}"
