"""As whom users are known at sites: encrypted when they come, wiped when they are replaced or not needed.

Nobody reads them here: only the orders of a batch have them in clear. Must not import views.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models.functions import Now

from workers import secrets
from workers.vocabulary.errors import Forbidden
from workqueue.models import Credential
from workqueue.sites import reading
from workqueue.sites.requests import SECRETS, CredentialRequest
from workqueue.who import Who


def put(who: Who, site_id: int, wanted: CredentialRequest) -> Credential:
    """The caller's credentials at a site, in the place of all that were there."""
    user_id = _user(who)
    with transaction.atomic():
        site = reading.visible(who).select_for_update(no_key=True).filter(pk=site_id).first()
        site = site or reading.site(who, site_id)
        row = Credential.objects.filter(site=site, user_id=user_id).first()
        old = _secrets([row]) if row is not None else []
        row = row or Credential(site=site, user_id=user_id)
        row.username = wanted.username
        for name in SECRETS:
            given = getattr(wanted, name)
            stored = secrets.store(who.tenant_id, f"workqueue.{name}", given) if given else None
            setattr(row, f"{name}_id", stored)
        row.changed_at = Now()
        row.save()
        secrets.wipe(old)
    row.refresh_from_db()
    return row


def remove(who: Who, site_id: int) -> None:
    """The caller is known there no more."""
    user_id = _user(who)
    with transaction.atomic():
        reading.site(who, site_id)
        wipe(site_id, user_id)


def wipe(site_id: int, user_id: int | None = None) -> None:
    """Those of a site, or of one user there."""
    rows = Credential.objects.select_for_update().filter(site_id=site_id)
    found = list(rows if user_id is None else rows.filter(user_id=user_id))
    Credential.objects.filter(pk__in=[row.pk for row in found]).delete()
    secrets.wipe(_secrets(found))


def _secrets(rows: Iterable[Credential]) -> list[int]:
    ids = (getattr(row, f"{name}_id") for row in rows for name in SECRETS)
    return [secret_id for secret_id in ids if secret_id is not None]


def _user(who: Who) -> int:
    if who.user_id is None:
        raise Forbidden("credentials belong to a user: send a token of one")
    return who.user_id
