"""Capacity: aggregates of hosts with amounts of resources, what of them is booked, policies and quotas.

Amounts are thousandths of the unit that the type's clients use. Declared pools are written by operators; what
a provider reports is written by its reader. Must not import views or other families.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from queues.models.entries import Entry, Queue
from workers.models import Secret, Tenant


class TypePolicy(models.Model):
    """How entries of a type are admitted, and where its capacity comes from. Without a row: the defaults."""

    class Mode(models.TextChoices):
        """What an entry that has to wait does to those behind it."""

        STRICT = "strict", "Strict"  # nobody behind it takes what it could take
        BEST_EFFORT = "best_effort", "Best effort"  # others may pass, one aggregate is kept for it

    type = models.CharField(max_length=128, unique=True)
    mode = models.CharField(max_length=16, choices=Mode.choices, db_default=Mode.STRICT)
    provider = models.CharField(max_length=16, db_default="pools")
    #: What the provider needs to be reached, but for its password or token.
    options = models.JSONField(default=dict)
    secret = models.OneToOneField(Secret, null=True, on_delete=models.SET_NULL)
    #: When it was last asked, when it was asked for what it last told, and why it tells nothing now ("" = it
    #: does).
    asked_at = models.DateTimeField(null=True)
    heard_at = models.DateTimeField(null=True)
    trouble = models.TextField(db_default="")

    class Meta:
        verbose_name = "policy"
        verbose_name_plural = "policies"
        constraints = [
            models.CheckConstraint(condition=Q(mode__in=["best_effort", "strict"]), name="policy_mode_known"),
            models.CheckConstraint(
                condition=Q(provider__in=["kubernetes", "placement", "pools"]), name="policy_provider_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type}: {self.mode}, {self.provider}"


class Aggregate(models.Model):
    """A group of hosts: all instances of a request go to one of them. Removed ones are kept for what ran."""

    type = models.CharField(max_length=128)
    name = models.CharField(max_length=255)
    #: Only these may use it; none = every tenant.
    tenants = models.ManyToManyField(Tenant, blank=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["type", "name"], name="aggregate_once")]

    def __str__(self) -> str:
        return f"{self.type}/{self.name}"


class Host(models.Model):
    """A host of an aggregate: each instance is placed on one."""

    aggregate = models.ForeignKey(Aggregate, on_delete=models.CASCADE, related_name="hosts", db_index=False)
    name = models.CharField(max_length=255)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["aggregate", "name"], name="host_once")]

    def __str__(self) -> str:
        return self.name


class HostResource(models.Model):
    """An amount of one resource on one host. Free is total - outside - held, never below 0.

    Totals may shrink below what is used; then nothing is admitted there until the excess is gone.
    """

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="resources", db_index=False)
    name = models.CharField(max_length=64)
    total = models.BigIntegerField()
    #: The largest total there ever was: what is larger than all of these never fits.
    largest = models.BigIntegerField()
    #: Used by others, as the provider says; 0 with declared pools.
    outside = models.BigIntegerField(db_default=0)
    #: Booked by running entries: the sum of the bookings.
    held = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "name"], name="host_resource_once"),
            models.CheckConstraint(
                condition=Q(total__gte=0, outside__gte=0, held__gte=0, largest__gte=0),
                name="host_resource_amounts",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Booking(models.Model):
    """What an entry holds of one resource of one host.

    Written by the one statement that takes it from the host (queues.admission.booking); ``left`` is what was
    free after it, and its check is what makes overbooking impossible.
    """

    entry = models.ForeignKey(Entry, on_delete=models.CASCADE, related_name="bookings")
    resource = models.ForeignKey(HostResource, on_delete=models.PROTECT, related_name="bookings")
    amount = models.BigIntegerField()
    left = models.BigIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0, left__gte=0), name="booking_fits"),
            models.UniqueConstraint(fields=["entry", "resource"], name="booking_once"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of {self.resource_id}"


class OwnerHolding(models.Model):
    """What an owner's running entries hold of one resource, and its quota (null = none)."""

    queue = models.ForeignKey(Queue, on_delete=models.CASCADE, db_index=False)
    owner_id = models.CharField(max_length=255)
    resource = models.CharField(max_length=64)
    held = models.BigIntegerField(db_default=0)
    quota = models.BigIntegerField(null=True)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "quota"
        constraints = [
            models.UniqueConstraint(fields=["queue", "owner_id", "resource"], name="owner_holding_once"),
            models.CheckConstraint(condition=Q(held__gte=0), name="owner_holding_amount"),
        ]
        indexes = [
            models.Index(
                fields=["queue", "owner_id"],
                condition=Q(held__gt=0) | Q(quota__isnull=False),
                name="owner_holding_live",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.owner_id}: {self.resource}"
