"""Why an entry is where it is, for a person (contract page 00, "explanation"). Must not import views."""

from __future__ import annotations

from typing import Any

from queues import reading


def explain(tenant_id: int, kind: str, request_id: str) -> dict[str, Any]:
    """The explanation of an entry. NoSuchEntry."""
    entry = reading.entry(tenant_id, kind, request_id)
    since = entry.ended_at or entry.admitted_at or entry.created_at
    return {
        "state": entry.status,
        "since": since,
        "reasons": [],
        "position": None,
        "estimate": None,
    }
