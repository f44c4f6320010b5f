"""Who changed what: one row for each changing call.

Written by ``workers.tenants.audit`` only, never changed.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class AuditEntry(models.Model):
    """A changing call and how it was answered. No bodies, no values of credentials.

    Names are kept as they were: no foreign keys, so that a row outlives what it tells of.
    """

    at = models.DateTimeField()
    #: Empty for a call that was refused before anybody was known.
    user_name = models.CharField(max_length=150, blank=True)
    token_prefix = models.CharField(max_length=12, blank=True)
    #: "token", "basic", "session", "network", or "signed" (what is asked carries its own authority).
    via = models.CharField(max_length=8, blank=True)
    peer = models.CharField(max_length=64, blank=True)
    tenant_id = models.BigIntegerField(null=True)
    tenant_name = models.CharField(max_length=64, blank=True)
    method = models.CharField(max_length=16)
    #: The route with its placeholders, such as "api/v1/runs/<int:run_id>/cancel".
    route = models.CharField(max_length=255)
    #: What the call was about, such as {"run_id": 12}: from the route, the query's ids, and what was made.
    about = models.JSONField(default=dict)
    #: 0: it changed something, and its process died before anybody knew the answer.
    status = models.SmallIntegerField()
    request_id = models.CharField(max_length=128)

    class Meta:
        indexes = [
            models.Index(fields=["at"], name="audit_at"),
            models.Index(fields=["tenant_id", "id"], name="audit_of_tenant"),
        ]
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.user_name or 'somebody'}: {self.method} {self.route} -> {self.status}"


class AuditBegun(models.Model):
    """A change whose entry is not written yet: committed with the change (``workers.tenants.begun``)."""

    mark = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    #: The entry as JSON, by the names of its columns.
    said = models.TextField()

    def __str__(self) -> str:
        return f"begun {self.mark}"
