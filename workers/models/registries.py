"""What tenants show private registries. Stored and read by ``workers.tenants.registries`` only."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from workers.models.secrets import Secret
from workers.models.tenancy import Tenant


class Registry(models.Model):
    """A tenant's credentials for one registry; the password is a secret, gone when this row is."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    #: In lower case, with its port: "registry.example:5000"; Docker Hub is "docker.io".
    host = models.CharField(max_length=255)
    username = models.CharField(max_length=255)
    secret = models.OneToOneField(Secret, on_delete=models.CASCADE)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = "registries"
        constraints = [models.UniqueConstraint(fields=["tenant", "host"], name="registry_once")]

    def __str__(self) -> str:
        return f"{self.host} of {self.tenant_id}"
