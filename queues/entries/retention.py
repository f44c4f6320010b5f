"""Everything ends: entries after the tenant's retention, the ids they leave after a year, unused classes.

Called by ``workers.upkeep.retention`` (GANTRY_PRUNERS) in bounded rounds; safe in several processes at once.
Must not import services or views.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection, transaction

from queues.bodies import OWNER_KIND
from workers.models import Callback
from workers.tenants import retention_policy

FAMILY: Final = "queues"
#: Contract page 50: an id is not given again for a year.
TOMBSTONE_D: Final = 365

_OLD: Final = """
    WITH own AS (SELECT * FROM unnest(%(tenants)s::bigint[], %(days)s::int[]) AS o(tenant_id, days))
    SELECT old.id FROM queues_queue q LEFT JOIN own ON own.tenant_id = q.tenant_id
    CROSS JOIN unnest(ARRAY['finished', 'cancelled', 'failed']) AS s(status)
    CROSS JOIN LATERAL (
        SELECT e.id FROM queues_entry e
        WHERE e.queue_id = q.id AND e.status = s.status AND e.ended_at IS NOT NULL
            AND e.ended_at < now() - coalesce(own.days, %(default)s) * interval '1 day'
        ORDER BY e.ended_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) old
    WHERE coalesce(own.days, %(default)s) > 0
    LIMIT %(limit)s
"""
_BURY: Final = """
    WITH gone AS (DELETE FROM queues_entry WHERE id = ANY(%s) RETURNING queue_id, request_id)
    INSERT INTO queues_tombstone (queue_id, request_id, until)
    SELECT queue_id, request_id, now() + %s * interval '1 day' FROM gone
    ON CONFLICT (queue_id, request_id) DO UPDATE SET until = excluded.until
"""
_TOMBSTONES: Final = """
    DELETE FROM queues_tombstone WHERE id IN (
        SELECT id FROM queues_tombstone WHERE until < now() ORDER BY until LIMIT %s FOR UPDATE SKIP LOCKED)
"""
_UNUSED: Final = """
    c.waiting = 0 AND NOT EXISTS (SELECT 1 FROM queues_entry e WHERE e.waiting_class_id = c.id)
"""
_LOCK_CLASSES: Final = f"""
    SELECT c.id FROM queues_waitingclass c WHERE {_UNUSED} LIMIT %s FOR UPDATE SKIP LOCKED
"""
_CLASSES: Final = f"DELETE FROM queues_waitingclass c WHERE c.id = ANY(%s) AND {_UNUSED}"


def prune(limit: int) -> dict[str, int]:
    """One bounded round: at most ``limit`` of each. What is queued or running keeps everything."""
    entries, classes = _bury(limit), _prune_classes(limit)
    with connection.cursor() as cursor:
        cursor.execute(_TOMBSTONES, [limit])
        return {"entries": entries, "entry_classes": classes, "entry_tombstones": cursor.rowcount}


def _prune_classes(limit: int) -> int:
    """Classes without entries. Looked at again under their locks: nobody takes one up from then on."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK_CLASSES, [limit])
        ids = [row[0] for row in cursor.fetchall()]
        if not ids:
            return 0
        cursor.execute(_CLASSES, [ids])
        return int(cursor.rowcount)


def _bury(limit: int) -> int:
    """Delete old entries with their callbacks; their ids are remembered."""
    own = {
        pk: retention_policy.effective(kept, FAMILY).runs_d for pk, kept in retention_policy.stored().items()
    }
    params: dict[str, Any] = {
        "tenants": list(own),
        "days": list(own.values()),
        "default": retention_policy.effective({}, FAMILY).runs_d,
        "limit": limit,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_OLD, params)
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            Callback.objects.filter(owner_kind=OWNER_KIND, owner_id__in=[str(pk) for pk in ids]).delete()
            cursor.execute(_BURY, [ids, TOMBSTONE_D])
    return len(ids)
