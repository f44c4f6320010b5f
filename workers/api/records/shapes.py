"""How /api/v1 shows limits, usage and the audit log: pure functions to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import AuditEntry
from workers.tenants.usage import FamilyUsage, Standing


def audit_entry(row: AuditEntry) -> dict[str, Any]:
    """A changing call, and how it was answered."""
    return {
        "id": row.pk,
        "at": stamp(row.at),
        "user": row.user_name,
        "token_prefix": row.token_prefix,
        "via": row.via,
        "peer": row.peer,
        "tenant": row.tenant_name,
        "method": row.method,
        "route": row.route,
        "objects": row.about,
        "status": row.status,
        "request_id": row.request_id,
    }


def family_usage(item: FamilyUsage) -> dict[str, Any]:
    """A tenant's use by one family."""
    return {
        "tenant": item.tenant,
        "family": item.family,
        "runs": {state.lower(): number for state, number in item.runs.items()},
        "attempts": item.attempts,
        "cpu_s": item.cpu_s,
        "mem_mb_s": item.mem_mb_s,
        "log_bytes": item.log_bytes,
        "callbacks": {"delivered": item.callbacks_delivered, "dead": item.callbacks_dead},
    }


def standing(item: Standing) -> dict[str, Any]:
    """What a tenant has of what it may have; a limit of null is none."""
    return {
        "waiting_runs": {"used": item.waiting, "limit": item.limits.waiting_runs or None},
        "running_runs": {"used": item.running, "limit": item.limits.running_runs or None},
        "requests_per_s": {"limit": item.limits.requests_per_s or None},
    }
