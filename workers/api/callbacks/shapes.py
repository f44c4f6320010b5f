"""How /api/v1 shows callbacks: pure functions from a row to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.api import shapes
from workers.api.answers import stamp
from workers.models import Callback, CallbackAttempt, CallbackSecret, DisabledUrl

#: (family, owner_id) -> where the family shows what a callback without a run belongs to.
Paths = Mapping[tuple[str, str], str]


def callback(row: Callback, attempts: list[CallbackAttempt], root: str, paths: Paths) -> dict[str, Any]:
    """A callback, its tenant and run already loaded; ``attempts`` oldest first."""
    return {
        "id": row.pk,
        "owner": _owner(row, root, paths),
        "event": row.event,
        "url": row.url,
        "state": row.state,
        "attempts": [attempt(item) for item in attempts],
        "next_at": stamp(row.next_at),
        "tenant": row.tenant.name,
        "family": row.family,
        "sequence": row.sequence,
        "webhook_id": row.message_id,
        "receiver": row.receiver,
        "created_at": stamp(row.created_at),
        "delivered_at": stamp(row.delivered_at),
    }


def detail(row: Callback, attempts: list[CallbackAttempt], root: str, paths: Paths) -> dict[str, Any]:
    """A callback with its body, byte for byte as it is sent."""
    return {**callback(row, attempts, root, paths), "body": row.body}


def _owner(row: Callback, root: str, paths: Paths) -> dict[str, Any]:
    if row.run is not None:
        return shapes.owner(row.run, root)
    path = paths.get((row.family, row.owner_id))
    return {"id": row.owner_id, "url": None if path is None else root + path}


def attempt(row: CallbackAttempt) -> dict[str, Any]:
    """One try; ``status`` is null where there was no answer."""
    return {"at": stamp(row.at), "status": row.status, "error": row.error or None, "ms": row.ms}


def disabled(row: DisabledUrl) -> dict[str, Any]:
    """A URL to which nothing goes."""
    return {"id": row.pk, "tenant": row.tenant.name, "url": row.url, "at": stamp(row.at)}


def secret(row: CallbackSecret) -> dict[str, Any]:
    """A secret without its value. ``shown`` is false for one whose value nobody knows."""
    return {
        "id": row.pk,
        "shown": row.shown,
        "created_at": stamp(row.created_at),
        "revoked_at": stamp(row.revoked_at),
    }
