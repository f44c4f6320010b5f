"""Queues, their entries and the classes of what waits.

Must not import views or other families. Amounts are thousandths (``queues.needs``).
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models import Tenant


class Queue(models.Model):
    """A queue is (tenant, type). Its row is locked by whatever adds to it or changes its order."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    type = models.CharField(max_length=128)
    #: The largest Priority that anything in it ever had: a new entry's is above.
    highest = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["type", "tenant"], name="queue_once")]

    def __str__(self) -> str:
        return f"{self.type} of {self.tenant_id}"


class WaitingClass(models.Model):
    """Entries of one queue that are the same to admission: owner, size and bound aggregate.

    Admission decides on classes, of which there are few, and looks at the first entries of each.
    """

    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, db_index=False)
    owner_id = models.CharField(max_length=255)
    #: [[count, {resource: amount}], ...] in canonical order: so many instances of that size.
    needs = models.JSONField()
    #: The aggregate that its data names; "" = any.
    aggregate = models.CharField(max_length=255, db_default="")
    #: SHA-256 of owner, needs and aggregate, in hexadecimal.
    digest = models.CharField(max_length=64)
    #: How many of it are queued; kept by the statements that queue and unqueue.
    waiting = models.IntegerField(db_default=0)
    #: It can go nowhere (never fits, or nothing is declared for it): not looked at until capacity grows.
    aside = models.BooleanField(db_default=False)

    class Meta:
        verbose_name_plural = "waiting classes"
        constraints = [
            models.UniqueConstraint(fields=["queue", "digest"], name="waiting_class_once"),
            models.CheckConstraint(condition=Q(waiting__gte=0), name="waiting_class_count"),
        ]
        indexes = [
            models.Index(
                fields=["queue", "id"], condition=Q(waiting__gt=0, aside=False), name="waiting_class_live"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.waiting} of {self.owner_id}"


class Entry(models.Model):
    """A request for resources, from its submission until retention removes it."""

    class Status(models.TextChoices):
        """Documented are the first two; the others end an entry for good."""

        QUEUED = "queued", "Queued"  # waits for capacity
        RUNNING = "running", "Running"  # admitted: its capacity is booked, its callback owed
        FINISHED = "finished", "Finished"  # its client ended it
        CANCELLED = "cancelled", "Cancelled"  # withdrawn before it was admitted
        FAILED = "failed", "Failed"  # its callback was never accepted, its capacity was given back

    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, db_index=False)
    waiting_class = models.ForeignKey(WaitingClass, on_delete=models.PROTECT)
    request_id = models.CharField(max_length=128)
    owner_id = models.CharField(max_length=255)
    #: JSON text, keys sorted, compact: as the wire shows it.
    data = models.TextField()
    callback = models.TextField()
    #: SHA-256 of the callback, in hexadecimal: a long text does not fit into an index.
    callback_digest = models.CharField(max_length=64)
    #: Whether the callback is an http(s) URL.
    deliverable = models.BooleanField()
    status = models.CharField(max_length=9, choices=Status.choices, db_default=Status.QUEUED)
    #: The smallest is first. What has the same number is ordered by ``tie`` (queues.order), a hidden key.
    priority = models.BigIntegerField()
    tie = models.TextField(db_collation="C", db_default="")

    #: The aggregate that holds it, since its admission.
    aggregate = models.CharField(max_length=255, db_default="")
    #: Best effort: which aggregate is kept free for this one while it is the head, and since when.
    reserved = models.CharField(max_length=255, db_default="")
    reserved_at = models.DateTimeField(null=True)
    #: When its callback was accepted, or its client confirmed: until then its capacity may be given back.
    told_at = models.DateTimeField(null=True)
    #: External providers: when our booking ends and their own usage counts; null with declared pools.
    hold_ends_at = models.DateTimeField(null=True)

    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    admitted_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    #: Why it ended, where it was not its client's wish.
    message = models.TextField(db_default="")

    class Meta:
        verbose_name_plural = "entries"
        constraints = [
            models.UniqueConstraint(fields=["queue", "request_id"], name="entry_request_once"),
            models.UniqueConstraint(
                fields=["queue", "callback_digest"],
                condition=Q(status__in=["queued", "running"]),
                name="entry_callback_once",
            ),
            models.UniqueConstraint(
                fields=["queue", "priority", "tie"], condition=Q(status="queued"), name="entry_order"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["cancelled", "failed", "finished", "queued", "running"]),
                name="entry_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["queued", "running"], ended_at__isnull=True)
                | (~Q(status__in=["queued", "running"]) & Q(ended_at__isnull=False)),
                name="entry_ended_iff_final",
            ),
            models.CheckConstraint(
                condition=~Q(status="running") | Q(admitted_at__isnull=False), name="entry_running_admitted"
            ),
            models.CheckConstraint(
                condition=Q(priority__gt=-(2**53), priority__lt=2**53), name="entry_priority_range"
            ),
        ]
        indexes = [
            models.Index(
                fields=["waiting_class", "priority", "tie"],
                condition=Q(status="queued"),
                name="entry_of_class",
            ),
            models.Index(
                fields=["queue", "owner_id", "priority", "tie"],
                condition=Q(status="queued"),
                name="entry_of_owner",
            ),
            models.Index(
                fields=["queue", "admitted_at", "id"], condition=Q(status="running"), name="entry_running"
            ),
            models.Index(
                fields=["queue", "status", "ended_at", "id"],
                condition=Q(ended_at__isnull=False),
                name="entry_ended",
            ),
            models.Index(fields=["id"], condition=~Q(reserved=""), name="entry_reserving"),
            models.Index(
                fields=["admitted_at"], condition=Q(status="running", told_at=None), name="entry_untold"
            ),
            models.Index(
                fields=["hold_ends_at"],
                condition=Q(status="running", hold_ends_at__isnull=False),
                name="entry_on_hold",
            ),
        ]

    def __str__(self) -> str:
        return self.request_id


class Tombstone(models.Model):
    """The id of an entry that retention removed: it is not given again for a year."""

    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, db_index=False)
    request_id = models.CharField(max_length=128)
    until = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["queue", "request_id"], name="tombstone_once")]

    def __str__(self) -> str:
        return self.request_id
