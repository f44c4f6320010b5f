"""Secrets at rest: ciphertext only. Encryption and rotation are in ``workers.secrets``."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models.runs import Run
from workers.models.tenancy import Tenant


class Secret(models.Model):
    """One encrypted value of a tenant; wiped (deleted) when no longer needed."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    purpose = models.CharField(max_length=64)
    ciphertext = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    #: The run that alone needs it: wiped when that has ended.
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE, db_index=False)

    class Meta:
        indexes = [models.Index(fields=["run"], condition=Q(run__isnull=False), name="secret_of_run")]

    def __str__(self) -> str:
        return f"{self.purpose} of {self.tenant_id}"
