"""Jobs, their elements, the attempts of these and the listings that attempts made."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.indexes import HashIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models import Tenant
from workqueue.models.sites import Site


class Type(models.IntegerChoices):
    """Documented integers (contract page 40), of jobs and of elements."""

    LIST = 0
    COPY = 1
    REMOVE = 2
    RENAME = 3
    MKDIR = 4


class Status(models.IntegerChoices):
    """Documented integers. A job's is derived from its counters."""

    NEW = 0  # never handed out
    DONE = 1
    FAILED = 2  # for good
    SUBMITTED = 3  # handed out, or waiting for its next try
    RUNNING = 4


class Job(models.Model):
    """What a client asked for. Its status follows from the counters, kept by every change of an element."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    #: Null: asked for without a user (a trusted network).
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, db_index=False)
    type = models.SmallIntegerField(choices=Type.choices)
    source = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="+")
    target = models.ForeignKey(Site, null=True, on_delete=models.PROTECT, related_name="+")
    #: As sent.
    src_filepath = models.TextField()
    dst_filepath = models.TextField(null=True)
    #: extra_opts.escaped: the paths are in the form of transfers.name_to_wire.
    escaped = models.BooleanField(db_default=False)
    #: As sent.
    extra_opts = models.JSONField(default=dict, db_default={})
    priority = models.SmallIntegerField(default=5)
    #: The documented name, "GRIDFTP", "SSH", "DUMMY", or one of ours.
    protocol = models.CharField(max_length=8)
    max_tries = models.SmallIntegerField(default=2)
    log_uid = models.CharField(max_length=32)
    callback_url = models.TextField(blank=True, db_default="")
    #: For pull workers alone.
    pull = models.BooleanField(db_default=False)

    num_new = models.IntegerField(db_default=0)
    num_submitted = models.IntegerField(db_default=0)
    num_running = models.IntegerField(db_default=0)
    num_done = models.IntegerField(db_default=0)
    num_failed = models.IntegerField(db_default=0)
    #: Elements that stand in the table: those beyond num_* belong to a listing that has not ended.
    elements = models.IntegerField(db_default=0)
    bytes_total = models.BigIntegerField(db_default=0)
    bytes_done = models.BigIntegerField(db_default=0)

    created_at = models.DateTimeField(db_default=Now())
    #: The documented timestamp: of the last change.
    changed_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by_operator = models.BooleanField(db_default=False)
    #: Why nothing of it was handed out at the last look, for explain; "" = nobody has looked.
    waiting_for = models.TextField(blank=True, db_default="")

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "user", "id"], name="job_of_user"),
            #: Those with work left, in the order in which they are looked at.
            models.Index(fields=["priority", "id"], condition=Q(finished_at=None), name="job_open"),
            models.Index(fields=["finished_at"], condition=Q(finished_at__isnull=False), name="job_ended"),
            #: For operators who look for what failed.
            models.Index(
                fields=["id"], condition=Q(finished_at__isnull=False, num_failed__gt=0), name="job_failed"
            ),
        ]

    def __str__(self) -> str:
        return f"job {self.pk}"


class Element(models.Model):
    """One file, folder or listing of a job, numbered from 0.

    Neither here nor in attempts and listings does the schema check the references: that would be most of the
    cost of a million elements. Only retention deletes jobs, what belongs to them first.
    """

    pk = models.CompositePrimaryKey("job_id", "number")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    number = models.IntegerField()
    type = models.SmallIntegerField(choices=Type.choices)
    src_filepath = models.TextField()
    dst_filepath = models.TextField(null=True)
    escaped = models.BooleanField(db_default=False)
    size = models.BigIntegerField(null=True)
    #: Of the file, in seconds since 1970, as last seen.
    mtime = models.BigIntegerField(null=True)
    max_tries = models.SmallIntegerField()
    #: Ended ones.
    attempts = models.SmallIntegerField(db_default=0)
    status = models.SmallIntegerField(choices=Status.choices, db_default=Status.NEW)
    #: Elements of a job are handed out phase by phase: the listing is 0.
    phase = models.IntegerField(db_default=0)
    #: Not tried again before.
    not_before = models.DateTimeField(null=True)
    #: Whoever has it now, or sweeps its part away.
    batch = models.ForeignKey(
        "Batch", null=True, on_delete=models.SET_NULL, db_constraint=False, db_index=False
    )
    changed_at = models.DateTimeField(db_default=Now())
    #: "adler32:<hex>"; what was verified.
    checksum = models.CharField(max_length=80, blank=True, db_default="")
    #: Progress of the attempt that runs, or the last one: bytes, bytes/s, seconds.
    transferred = models.BigIntegerField(null=True)
    instant = models.FloatField(null=True)
    elapsed = models.FloatField(null=True)
    #: The attempt that may have left a part at the target (of what is no COPY: that may have done it without
    #: anybody hearing of it), and the source's version then.
    part_attempt = models.SmallIntegerField(null=True)
    source_version = models.TextField(blank=True, db_default="")
    #: How many endpoints of the source's and of the target's site were to blame: the next try takes another.
    src_turn = models.SmallIntegerField(db_default=0)
    dst_turn = models.SmallIntegerField(db_default=0)

    class Meta:
        indexes = [
            #: What nobody has and is left to do.
            models.Index(
                fields=["job", "phase", "number"],
                condition=Q(status__in=[Status.NEW, Status.SUBMITTED], batch__isnull=True),
                name="element_ready",
            ),
            #: Failed for good: shown, and tried again when asked.
            models.Index(fields=["job", "number"], condition=Q(status=Status.FAILED), name="element_failed"),
            #: Failed for good, and a part may lie at the target.
            models.Index(
                fields=["job"],
                condition=Q(status=Status.FAILED, part_attempt__isnull=False),
                name="element_swept",
            ),
            models.Index(fields=["batch"], condition=Q(batch__isnull=False), name="element_of_batch"),
            #: What is being written, by where to. Not a tree: a path may be longer than it takes.
            HashIndex(
                fields=["dst_filepath"],
                condition=Q(batch__isnull=False, type=Type.COPY),
                name="element_writes",
            ),
        ]

    def __str__(self) -> str:
        return f"element {self.number} of job {self.job_id}"


class ElementAttempt(models.Model):
    """One ended attempt of an element."""

    pk = models.CompositePrimaryKey("job_id", "number", "attempt")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    number = models.IntegerField()
    attempt = models.SmallIntegerField()
    status = models.SmallIntegerField(choices=[(1, "DONE"), (2, "FAILED")])
    returncode = models.IntegerField()
    host = models.TextField()
    #: What the worker itself called the time; free text of pull workers.
    told_at = models.TextField()
    log = models.TextField()
    #: Names in its listing; null where it made none.
    listing_count = models.BigIntegerField(null=True)
    ended_at = models.DateTimeField(db_default=Now())
    run_id = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        return f"attempt {self.attempt} of element {self.number} of job {self.job_id}"


class ListingPart(models.Model):
    """A piece of what an attempt of a LIST found: lines of the report as they came, compressed (zlib).

    ``report`` is the byte of the report where it begins, the order of the parts.
    """

    pk = models.CompositePrimaryKey("job_id", "number", "attempt", "report")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    number = models.IntegerField()
    attempt = models.SmallIntegerField()
    report = models.BigIntegerField()
    names = models.IntegerField()
    data = models.BinaryField()

    def __str__(self) -> str:
        return f"listing of element {self.number} of job {self.job_id} from {self.report}"
