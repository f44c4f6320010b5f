"""Idempotency keys: the first 2xx answer of a creating request, kept for 24 hours."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from workers.models.tenancy import Tenant


class IdempotencyKey(models.Model):
    """A tenant's, for a method and a path with the user at its end; committed with what was created."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    method = models.CharField(max_length=8)
    path = models.CharField(max_length=255)
    key = models.CharField(max_length=255)
    body_digest = models.CharField(max_length=64)
    status = models.SmallIntegerField(null=True)
    #: The answer as a text of JSON; of one that showed a secret {"id"} alone.
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "method", "path", "key"], name="idempotency_once")
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.key}"
