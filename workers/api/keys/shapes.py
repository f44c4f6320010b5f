"""How /api/v1 shows signing keys: a pure function from a row to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import SigningKey


def key(row: SigningKey) -> dict[str, Any]:
    """A public key; nothing shows a private one."""
    return {
        "id": row.name,
        "algorithm": "Ed25519",
        "public_key": row.public_key,
        "created_at": stamp(row.created_at),
        "retired_at": None if row.retired_at is None else stamp(row.retired_at),
    }
