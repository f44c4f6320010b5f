"""Keys with which a tenant's receipts are signed. The private half is a ``Secret``."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from workers.models.secrets import Secret
from workers.models.tenancy import Tenant


class SigningKey(models.Model):
    """An Ed25519 key pair. One of a tenant's is in use; what earlier ones signed stays verifiable."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, db_index=False)
    #: Names it in what it signed: the first 16 hexadecimal digits of the SHA-256 of the public key.
    name = models.CharField(max_length=16)
    #: Raw public key in base64.
    public_key = models.CharField(max_length=44)
    #: Null once it is retired: nobody can sign with it any more.
    secret = models.OneToOneField(Secret, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    retired_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="signing_key_once"),
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(retired_at=None), name="signing_key_one_in_use"
            ),
        ]

    def __str__(self) -> str:
        return self.name
