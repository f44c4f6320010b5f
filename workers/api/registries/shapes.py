"""How /api/v1 shows registries: a pure function from a row to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import Registry


def registry(row: Registry) -> dict[str, Any]:
    """A tenant's credentials for a registry, without the password."""
    return {
        "registry": row.host,
        "username": row.username,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.updated_at),
    }
