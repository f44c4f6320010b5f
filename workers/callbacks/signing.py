"""Standard Webhooks: the headers of a callback, and the secrets of a tenant that sign it.

Two secrets may be valid at once, so that a receiver can be changed at leisure; each signs. A value is shown
once, when its tenant asks for it. A tenant that never asked has one that nobody knows: it is replaced by the
first one that is shown. Must not import HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from workers import secrets
from workers.models import CallbackSecret, Tenant
from workers.vocabulary.errors import Conflict, NotFound, SecretUnreadable

PREFIX: Final = "whsec_"
MOST: Final = 2
#: Values that this process has read, by the ids of their secrets. Which ones sign is asked each time, so
#: that a new one signs from its answer on, and a revoked one no more.
_known: dict[tuple[int, ...], tuple[str, ...]] = {}
_KNOWN_MAX: Final = 10_000


def headers(message_id: str, body: bytes, values: Sequence[str], now: float) -> dict[str, str]:
    """The headers that prove who sent ``body``. ``now``: seconds since 1970."""
    stamp = str(int(now))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(sign(message_id, stamp, body, value) for value in values),
    }


def sign(message_id: str, stamp: str, body: bytes, value: str) -> str:
    """One signature: v1, and the HMAC-SHA256 over id.timestamp.body in base64."""
    key = base64.b64decode(value.removeprefix(PREFIX))
    digest = hmac.new(key, b".".join((message_id.encode(), stamp.encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def valid(tenant_id: int) -> tuple[str, ...]:
    """The values that sign now; one is made where there is none. SecretUnreadable."""
    ids = _ids(tenant_id)
    if not ids:
        with transaction.atomic():
            Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
            if not _active(tenant_id).exists():
                _make(tenant_id, shown=False)
        ids = _ids(tenant_id)
    values = _known.get(ids)
    if values is None:
        values = _read(ids)
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        _known[ids] = values
    return values


def forget() -> None:
    """Drop what this process remembers: after a change."""
    _known.clear()


def make(tenant_id: int) -> tuple[CallbackSecret, str]:
    """A new secret beside the one in use, and its value. Conflict when two are in use already."""
    with transaction.atomic():
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant_id)
        for unknown in _active(tenant_id).filter(shown=False):
            _revoke(unknown)
        if _active(tenant_id).count() >= MOST:
            raise Conflict("two callback secrets are valid already: revoke the older one first")
        made = _make(tenant_id, shown=True)
    forget()
    return made


def revoke(tenant_id: int, secret_id: int) -> CallbackSecret:
    """End a secret; its value is deleted. After the last one a new, unknown one signs until one is made."""
    with transaction.atomic():
        found = CallbackSecret.objects.select_for_update().filter(pk=secret_id, tenant_id=tenant_id).first()
        if found is None:
            raise NotFound(f"there is no callback secret {secret_id}")
        if found.revoked_at is None:
            _revoke(found)
    forget()
    found.refresh_from_db()
    return found


def _active(tenant_id: int) -> QuerySet[CallbackSecret]:
    return CallbackSecret.objects.filter(tenant_id=tenant_id, revoked_at=None)


def _ids(tenant_id: int) -> tuple[int, ...]:
    """The secrets that sign now, the newest first."""
    return tuple(
        item for item in _active(tenant_id).order_by("-pk").values_list("secret_id", flat=True) if item
    )


def _read(ids: Sequence[int]) -> tuple[str, ...]:
    found = []
    problem: SecretUnreadable | None = None
    for secret_id in ids:
        try:
            found.append(secrets.reveal(secret_id))
        except SecretUnreadable as error:
            problem = error
    if problem is not None and not found:
        raise problem
    return tuple(found)


def _make(tenant_id: int, *, shown: bool) -> tuple[CallbackSecret, str]:
    value = PREFIX + base64.b64encode(os.urandom(32)).decode()
    kept = secrets.store(tenant_id, "callback signing", value)
    return CallbackSecret.objects.create(tenant_id=tenant_id, secret_id=kept, shown=shown), value


def _revoke(row: CallbackSecret) -> None:
    kept = row.secret_id
    CallbackSecret.objects.filter(pk=row.pk).update(revoked_at=Now(), secret=None)
    if kept is not None:
        secrets.wipe([kept])
