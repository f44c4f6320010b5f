"""What the database counts by itself, by triggers (0003, 0008): waiting runs and usage of each tenant.

Each database connection (``writer``, its backend's process id) adds to rows of its own, so that nobody ever
waits for another to count; the reconciler folds rows of ended connections into writer 0. Docs: decision 40.
"""

from __future__ import annotations

from django.db import models


class TenantLoad(models.Model):
    """How many runs of a tenant wait: the sum over its rows. One row by itself may be negative."""

    pk = models.CompositePrimaryKey("tenant_id", "writer")
    tenant_id = models.BigIntegerField()
    writer = models.IntegerField()
    waiting = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.waiting} waiting of tenant {self.tenant_id}"


class UsageDay(models.Model):
    """What ended on a day (UTC): runs by their state, attempts with what they reserved, callbacks."""

    pk = models.CompositePrimaryKey("tenant_id", "day", "family", "state", "writer")
    tenant_id = models.BigIntegerField()
    day = models.DateField()
    family = models.CharField(max_length=16)
    state = models.CharField(max_length=10)
    writer = models.IntegerField()
    runs = models.BigIntegerField(db_default=0)
    attempts = models.BigIntegerField(db_default=0)
    #: Reserved CPUs times milliseconds, from an attempt's start to its end.
    cpu_ms = models.BigIntegerField(db_default=0)
    #: Reserved MiB times seconds.
    mem_mb_s = models.BigIntegerField(db_default=0)
    log_bytes = models.BigIntegerField(db_default=0)
    #: On the day on which they were delivered or given up, in a row whose state is blank.
    callbacks_delivered = models.BigIntegerField(db_default=0)
    callbacks_dead = models.BigIntegerField(db_default=0)

    class Meta:
        indexes = [models.Index(fields=["day"], name="usage_day")]

    def __str__(self) -> str:
        return f"tenant {self.tenant_id} on {self.day}: {self.family} {self.state}"
