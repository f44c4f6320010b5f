"""Credentials of tenants for private registries: kept encrypted, one per tenant and registry, used at pulls.

A password enters through ``put`` and leaves only through ``for_image``, on the node that pulls. Must not
import HTTP, views or runtimes.
"""

from __future__ import annotations

import re
from typing import Final

from django.db import connection, transaction
from django.db.models.functions import Now

from workers import secrets
from workers.models import Registry, Secret
from workers.vocabulary import references
from workers.vocabulary.errors import InvalidInput, NotFound, SecretUnreadable
from workers.vocabulary.references import BadReference, Credentials

#: Longest password: a key of a cloud's service account is a JSON document.
LONGEST_PASSWORD: Final = 16 * 1024
_USERNAME: Final = re.compile(r"[^\x00-\x1f\x7f:]{1,255}")


def host(text: str) -> str:
    """A registry's name as it is stored. Raises InvalidInput."""
    try:
        return references.host(text)
    except BadReference as error:
        raise InvalidInput(str(error), field="registry") from None


def put(tenant_id: int, registry: str, username: str, password: str) -> Registry:
    """Store or replace what a tenant shows a registry; the password is encrypted at once."""
    name = host(registry)
    if not _USERNAME.fullmatch(username):
        raise InvalidInput(
            'username must have 1 to 255 characters, no ":" and no control characters', field="username"
        )
    if not password or len(password) > LONGEST_PASSWORD or "\0" in password:
        raise InvalidInput(f"password must have 1 to {LONGEST_PASSWORD} characters", field="password")
    with transaction.atomic(), connection.cursor() as cursor:
        # Two at once for the same registry: the second waits and wins; no secret is left behind.
        cursor.execute("SELECT 1 FROM workers_tenant WHERE id = %s FOR NO KEY UPDATE", [tenant_id])
        before = Registry.objects.filter(tenant_id=tenant_id, host=name).first()
        secret_id = secrets.store(tenant_id, f"registry {name}"[:64], password)
        if before is None:
            return Registry.objects.create(
                tenant_id=tenant_id, host=name, username=username, secret_id=secret_id
            )
        old, before.username, before.secret_id = before.secret_id, username, secret_id
        Registry.objects.filter(pk=before.pk).update(username=username, secret_id=secret_id, updated_at=Now())
        Secret.objects.filter(pk=old).delete()
    before.refresh_from_db()
    return before


def remove(tenant_id: int, registry: str) -> Registry:
    """Forget the credentials, the password at once. NotFound when there are none."""
    name = host(registry)
    with transaction.atomic():
        found = Registry.objects.select_for_update().filter(tenant_id=tenant_id, host=name).first()
        if found is None:
            raise NotFound(f"there are no credentials for the registry {name}")
        pk = found.pk
        Secret.objects.filter(pk=found.secret_id).delete()
        found.pk = pk
    return found


def for_image(tenant_id: int, image: str) -> Credentials | None:
    """What the tenant shows the image's registry; None when it has stored nothing for it.

    Raises SecretUnreadable, which names the registry and no secret.
    """
    try:
        name = references.parse(image).registry
    except BadReference:
        return None  # the pull will say so
    found = Registry.objects.filter(tenant_id=tenant_id, host=name).first()
    if found is None:
        return None
    try:
        password = secrets.reveal(found.secret_id)
    except SecretUnreadable as error:
        raise SecretUnreadable(f"the credentials for the registry {name}: {error.message}") from None
    return Credentials(
        holder=f"{tenant_id}/{name}/{found.username}", username=found.username, password=password
    )
