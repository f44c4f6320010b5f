"""How /api/v1 shows the engine's things: pure functions from a row to JSON.

Source: contract page 00, "Shapes of ours": fields may join, none may change. Must not import services or
views.
"""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.models import Attempt, AuditEntry, Membership, Node, Registry, Run, RunEvent, Tenant, Token
from workers.tenants.usage import FamilyUsage, Standing
from workers.vocabulary import families


def run(row: Run, root: str) -> dict[str, Any]:
    """A run, its tenant and node already loaded. ``root`` is scheme and host, without a slash at its end."""
    return {
        "id": row.pk,
        "family": row.family,
        "kind": row.kind,
        "name": row.name,
        "tenant": row.tenant.name,
        "owner": owner(row, root),
        "state": row.state,
        "reason": row.reason,
        "message": row.message,
        "priority": row.priority,
        "node": row.node.name if row.node is not None else None,
        "attempt": row.attempt,
        "exit_code": row.exit_code,
        "created_at": stamp(row.created_at),
        "started_at": stamp(row.started_at),
        "finished_at": stamp(row.finished_at),
        "cancel_requested_at": stamp(row.cancel_requested_at),
        "url": f"{root}/api/v1/runs/{row.pk}",
    }


def owner(row: Run, root: str) -> dict[str, Any]:
    """What the family calls that which the run belongs to, and where it shows it."""
    try:
        found: dict[str, Any] = dict(families.family(row.family).owner(row))
    except KeyError:
        # Rows of a family that this process does not serve (an older release, another installation's dump).
        return {"id": row.owner_id or str(row.pk), "url": None}
    url = found.get("url")
    if isinstance(url, str) and url.startswith("/"):
        found["url"] = root + url
    return found


def detail(row: Run, attempts: list[Attempt], events: list[RunEvent], root: str) -> dict[str, Any]:
    """A run with its attempts and events, oldest first."""
    return {
        **run(row, root),
        "attempts": [attempt(item) for item in attempts],
        "events": [event(item) for item in events],
    }


def attempt(row: Attempt) -> dict[str, Any]:
    """One try."""
    return {
        "number": row.number,
        "node": row.node.name,
        "state": row.state,
        "reason": row.reason,
        "message": row.message,
        "exit_code": row.exit_code,
        "started_at": stamp(row.started_at),
        "finished_at": stamp(row.finished_at),
        "log_bytes": row.log_bytes,
        "log_truncated": row.log_truncated,
        "image_digest": row.facts.get("image_digest"),
    }


def event(row: RunEvent) -> dict[str, Any]:
    """One recorded transition; "from" is empty for the first."""
    return {
        "at": stamp(row.at),
        "from": row.from_state,
        "to": row.to_state,
        "reason": row.reason,
        "attempt": row.attempt,
        "by": row.by,
    }


def node(row: Node, silence_s: float, lease_s: float) -> dict[str, Any]:
    """A node. ``silence_s`` since its heartbeat, by the database's clock; beyond a lease it is silent."""
    if row.mode == Node.Mode.REMOVED:
        state = "removed"
    elif silence_s > lease_s or row.detached:
        state = "silent"
    else:
        state = row.mode
    return {
        "name": row.name,
        "swarm_node_id": row.swarm_node_id or None,
        "state": state,
        "attributes": row.attributes,
        "runtimes": row.runtimes,
        "cpus": row.cpu_m_total / 1000,
        "cpus_free": (row.cpu_m_total - row.cpu_m_used) / 1000,
        "mem_mb": row.mem_mb_total,
        "mem_mb_free": row.mem_mb_total - row.mem_mb_used,
        "running": row.slots_used,
        "heartbeat_at": stamp(row.heartbeat_at),
        "version": row.version,
        "draining": row.mode == Node.Mode.DRAINING,
        "trouble": row.trouble or "; ".join(row.troubles.values()) or None,
    }


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


def registry(row: Registry) -> dict[str, Any]:
    """A tenant's credentials for a registry, without the password."""
    return {
        "registry": row.host,
        "username": row.username,
        "created_at": stamp(row.created_at),
        "updated_at": stamp(row.updated_at),
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
