"""What the engine asks of the queues family (``workers.vocabulary.families``).

Entries are no runs: the family owns none. It is registered for its tenants' retention and for the callbacks
that admission owes, whose owner is an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from queues import bodies
from queues.entries import wire
from workers.vocabulary.families import CallbackFacts


def owner(run: Any) -> dict[str, str]:
    """Of a run: there is none."""
    return {"id": str(run.owner_id), "url": ""}


def callback(facts: CallbackFacts, event: str) -> dict[str, Any]:
    """Of a run: there is none."""
    raise LookupError("the queues family runs nothing")


def owner_paths(kind: str, owner_ids: Sequence[str]) -> dict[str, str]:
    """Where the owners of callbacks are shown, by the callbacks' owner_id."""
    ids = [int(owner_id) for owner_id in owner_ids if owner_id.isdigit()]
    if kind != bodies.OWNER_KIND or not ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT e.id, q.type, e.request_id FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
               WHERE e.id = ANY(%s)""",
            [ids],
        )
        return {str(row[0]): wire.entry_path(row[1], row[2]) for row in cursor.fetchall()}
