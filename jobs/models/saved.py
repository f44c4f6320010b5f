"""Saved jobs, their executors (one per start) and the targets of each. What happens to a target is its run's.

Nothing of a run's state is stored here: status, times and output are read from the run and its attempt. Must
not import views or other families.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models import Run, Tenant


class Job(models.Model):
    """A command of an application that can be started again and again in chosen containers."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    app_name = models.CharField(max_length=255)
    service_name = models.CharField(max_length=255, blank=True, default="")
    name = models.CharField(max_length=128)
    cmd = models.TextField()
    privileged = models.BooleanField(default=False)
    user = models.CharField(max_length=128, blank=True, default="")
    #: ["NAME=value", ...] as the client sent them.
    env = models.JSONField(default=list)
    #: Ids of ``workers.secrets``, in the order of the arguments, and how many characters each has.
    secret_ids = ArrayField(models.BigIntegerField(), default=list)
    secret_lengths = ArrayField(models.IntegerField(), default=list)
    #: Secrets that an edit or the deletion has dropped: wiped as soon as no unfinished run needs them.
    retired_secret_ids = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    #: Set by DELETE: the name is free again, the history stays readable.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "app_name", "name"], condition=Q(deleted_at=None), name="job_name_once"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "id"], condition=Q(deleted_at=None), name="job_of_tenant"),
            models.Index(fields=["id"], condition=~Q(retired_secret_ids=[]), name="job_retired_secrets"),
            models.Index(fields=["deleted_at"], condition=~Q(deleted_at=None), name="job_deleted"),
        ]

    def __str__(self) -> str:
        return f"{self.app_name}/{self.name}"


class Executor(models.Model):
    """One start of a job: what was started, as the job was then. Later edits do not change it."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="executors", db_index=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    #: The id on the wire: whole seconds since 1970; the next one when it is taken.
    number = models.BigIntegerField()
    #: Seconds since 1970; its whole part is always ``number``.
    create_time = models.FloatField()
    app_name = models.CharField(max_length=255)
    name = models.CharField(max_length=128)
    cmd = models.TextField()
    privileged = models.BooleanField()
    user = models.CharField(max_length=128, blank=True)
    secret_ids = ArrayField(models.BigIntegerField())
    secret_lengths = ArrayField(models.IntegerField())
    #: The executor whose failed targets this one repeats.
    retry_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="executor_once")]
        indexes = [
            models.Index(fields=["tenant", "id"], name="executor_of_tenant"),
            models.Index(fields=["create_time"], name="executor_age"),
            models.Index(fields=["retry_of"], condition=~Q(retry_of=None), name="executor_retried"),
        ]

    def __str__(self) -> str:
        return f"{self.app_name}/{self.name} {self.number}"


class Target(models.Model):
    """One container of an executor. Its run says how it goes; without one ``error`` says why."""

    executor = models.ForeignKey(Executor, on_delete=models.CASCADE, related_name="targets", db_index=False)
    ordinal = models.IntegerField()
    #: Both as the client sent them; an empty container stands for those of a node that could not be asked.
    container = models.CharField(max_length=255, blank=True)
    node = models.CharField(max_length=128)
    run = models.OneToOneField(Run, null=True, on_delete=models.PROTECT, related_name="target")
    error = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["executor", "ordinal"], name="target_once"),
            models.CheckConstraint(
                condition=(Q(run=None) & ~Q(error="")) | Q(run__isnull=False, error=""),
                name="target_run_or_error",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.container} on {self.node}"
