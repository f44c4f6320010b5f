"""The keys that sign a tenant's receipts (Ed25519): made when first needed, replaced, never forgotten.

A retired key's private half is wiped at once; its public half stays, so that what it signed can be verified.
Must not import HTTP, views or runtimes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.db import transaction
from django.db.models.functions import Now

from workers import secrets
from workers.models import SigningKey, Tenant
from workers.vocabulary.errors import SecretUnreadable


@dataclass(frozen=True)
class Signer:
    """A key in use. ``name`` may stand in what it signs."""

    name: str
    _private: Ed25519PrivateKey

    def sign(self, message: bytes) -> str:
        """The signature in base64."""
        return base64.b64encode(self._private.sign(message)).decode()


def signer(tenant_id: int) -> Signer:
    """The key that signs now; one is made where there is none. Raises SecretUnreadable."""
    while True:
        row = in_use(tenant_id)
        try:
            private = secrets.reveal(row.secret_id or 0)
        except SecretUnreadable:
            if SigningKey.objects.filter(pk=row.pk, retired_at=None).exists():
                raise
            continue  # replaced between the two questions
        return Signer(row.name, Ed25519PrivateKey.from_private_bytes(base64.b64decode(private)))


def in_use(tenant_id: int) -> SigningKey:
    """The key that signs now."""
    found = SigningKey.objects.filter(tenant_id=tenant_id, retired_at=None).first()
    if found is not None:
        return found
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
        found = SigningKey.objects.filter(tenant_id=tenant_id, retired_at=None).first()
        return found or _make(tenant_id)


def replace(tenant_id: int) -> SigningKey:
    """A new key; the one in use until now is retired, its private half deleted."""
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
        for old in SigningKey.objects.filter(tenant_id=tenant_id, retired_at=None):
            SigningKey.objects.filter(pk=old.pk).update(retired_at=Now(), secret=None)
            if old.secret_id is not None:
                secrets.wipe([old.secret_id])
        return _make(tenant_id)


def _make(tenant_id: int) -> SigningKey:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    secret_id = secrets.store(
        tenant_id, "signing key", base64.b64encode(private.private_bytes_raw()).decode()
    )
    made = SigningKey.objects.create(
        tenant_id=tenant_id,
        name=hashlib.sha256(public).hexdigest()[:16],
        public_key=base64.b64encode(public).decode(),
        secret_id=secret_id,
    )
    made.refresh_from_db()
    return made
