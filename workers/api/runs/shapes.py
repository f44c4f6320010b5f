"""How /api/v1 shows runs: pure functions from a row to JSON. As ``workers.api.shapes``."""

from __future__ import annotations

from typing import Any

from workers.api.answers import stamp
from workers.api.shapes import owner
from workers.models import Attempt, Run, RunEvent


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
        "log_pruned": row.log_pruned_at is not None,
        "url": f"{root}/api/v1/runs/{row.pk}",
    }


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
        "log_pruned": row.log_pruned is not None,
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
        "note": row.note,
    }
