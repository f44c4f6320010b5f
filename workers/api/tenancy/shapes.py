"""How /api/v1 shows tenants, users and tokens: pure functions from a row to JSON.

As ``workers.api.shapes``.
"""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import Membership, Tenant, Token


def tenant(row: Tenant) -> dict[str, Any]:
    """A tenant as operators see it."""
    return {
        "name": row.name,
        "title": row.title,
        "active": row.active,
        "trusted_with_worker_account": row.trusted_with_worker_account,
        "policy": row.policy,
        "limits": row.limits,
        "retention": row.retention,
        "created_at": stamp(row.created_at),
    }


def user(row: Any, memberships: list[Membership]) -> dict[str, Any]:
    """A user; ``memberships`` with their tenants loaded."""
    return {
        "name": row.get_username(),
        "email": row.email,
        "active": row.is_active,
        "superuser": row.is_superuser,
        "tenants": [{"name": item.tenant.name, "default": item.is_default} for item in memberships],
        "created_at": stamp(row.date_joined),
    }


def token(row: Token) -> dict[str, Any]:
    """A token without its value, which nobody has but its holder."""
    return {
        "id": row.pk,
        "user": row.user.get_username(),
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "created_at": stamp(row.created_at),
        "expires_at": stamp(row.expires_at),
        "revoked_at": stamp(row.revoked_at),
    }
