"""What entries were told of their wait, and what bounds are multiplied by. Bounded: see queues.estimates.

Run times and waits of the past are not kept here: they are read from the entries. Must not import views.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Told(models.Model):
    """What an entry was told soon after its submission; with its wait, once it was admitted.

    Not tied to its entry by a constraint: retention need not know of it.
    """

    entry_id = models.BigIntegerField(primary_key=True)
    type = models.CharField(max_length=128)
    #: From ``made_at`` on. ``raw_s``: the bound before calibration; 0 = there is none.
    p50_s = models.FloatField()
    p90_s = models.FloatField()
    raw_s = models.FloatField()
    method = models.CharField(max_length=16)
    made_at = models.DateTimeField(db_default=Now())
    #: Whether the wait was longer than the bound; null = that is not known yet.
    missed = models.BooleanField(null=True)
    #: From ``made_at`` to ``admitted_at``.
    waited_s = models.FloatField(null=True)
    admitted_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "estimate"
        indexes = [
            models.Index(fields=["entry_id"], condition=Q(waited_s=None), name="told_open"),
            models.Index(
                fields=["type", "admitted_at"], condition=Q(waited_s__isnull=False), name="told_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.p90_s:.0f} s for {self.entry_id}"


class Calibration(models.Model):
    """By type, the logarithm of what bounds are multiplied by (queues.estimates.calibration)."""

    type = models.CharField(max_length=128, unique=True)
    tilt = models.FloatField(db_default=0.0)

    class Meta:
        verbose_name = "accuracy of estimates"
        verbose_name_plural = "accuracy of estimates"

    def __str__(self) -> str:
        return f"{self.type}: {self.tilt:+.2f}"
