"""What becomes of admitted entries: told, or failed and their capacity given back, once each.

Source: contract page 50, "When admitted". A callback that is no http(s) URL is never sent: its horizon is
GANTRY_QUEUE_UNTOLD_S after the admission. One that was given up (dead), or whose receiver said 410, was never
accepted. External providers: our booking ends GANTRY_QUEUE_HANDOVER_S after the accepted callback, with the
provider's next answer (queues.providers.refresh).
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import locks
from queues.admission import booking
from workers.messages import doorbell
from workers.vocabulary.duties import one_by_one

log = structlog.get_logger(__name__)

#: Entries of one look.
_MOST: Final = 500
#: How long the end of one may wait for locks, in ms.
_PATIENCE_MS: Final = 250

_UNTOLD: Final = """
    SELECT e.id, q.type, CASE
            WHEN c.state = 'delivered' THEN 'told'
            WHEN c.state = 'dead' THEN 'its callback was given up: it was never accepted'
            WHEN c.state = 'disabled' THEN 'the receiver of its callback said 410 (gone)'
            ELSE 'its callback is no http(s) URL, and it was not ended or confirmed in time' END
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
    LEFT JOIN workers_callback c ON c.owner_kind = 'entry' AND c.owner_id = e.id::text AND c.sequence = 1
    WHERE e.status = 'running' AND e.told_at IS NULL AND (c.state IN ('delivered', 'dead', 'disabled')
        OR (NOT e.deliverable AND e.admitted_at < now() - %s * interval '1 second'))
    ORDER BY e.admitted_at LIMIT %s
"""
_TOLD: Final = """
    UPDATE queues_entry e SET told_at = coalesce(c.delivered_at, clock_timestamp()),
        hold_ends_at = CASE WHEN coalesce(p.provider, 'pools') <> 'pools'
            THEN coalesce(c.delivered_at, clock_timestamp()) + %s * interval '1 second' END
    FROM workers_callback c, queues_queue q LEFT JOIN queues_typepolicy p ON p.type = q.type
    WHERE e.id IN (SELECT id FROM queues_entry WHERE id = ANY(%s) AND status = 'running' AND told_at IS NULL
            FOR NO KEY UPDATE SKIP LOCKED)
        AND q.id = e.queue_id
        AND c.owner_kind = 'entry' AND c.owner_id = e.id::text AND c.sequence = 1
"""
_FAIL: Final = """
    UPDATE queues_entry SET status = 'failed', message = %s, ended_at = clock_timestamp(),
        updated_at = clock_timestamp()
    WHERE id = %s AND status = 'running' AND told_at IS NULL
"""


def settle() -> dict[str, int]:
    """One bounded round; returns {what: how many}."""
    with connection.cursor() as cursor:
        cursor.execute(_UNTOLD, [settings.GANTRY_QUEUE_UNTOLD_S, _MOST])
        decided = cursor.fetchall()
    told = [entry for entry, _, what in decided if what == "told"]
    if told:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_TOLD, [settings.GANTRY_QUEUE_HANDOVER_S, told])
    untold = [row for row in decided if row[2] != "told"]
    failed = one_by_one("an entry that cannot be told", untold, lambda row: _fail(*row))
    return {"told": len(told), "failed": sum(failed.values())}


def _fail(entry: int, kind: str, why: str) -> int:
    """End an entry whose client cannot be told; 0 when something else has ended or told it meanwhile.

    Also 0 when somebody holds its queue: the next look has it, and those of other queues do not wait.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_PATIENCE_MS}ms"])
            if not _locked(cursor, entry, kind):
                return 0
            cursor.execute(_FAIL, [why, entry])
            if not cursor.rowcount:
                return 0
            booking.give_back(cursor, [entry])
            doorbell.ring_duties_after_commit()
    except OperationalError as error:
        if getattr(error.__cause__, "pgcode", None) not in locks.HELD_UP:
            raise
        log.warning("queues.settling_held_up", entry=entry, type=kind, error=str(error))
        return 0
    log.warning("queues.entry_failed", entry=entry, type=kind, why=why)
    return 1


def _locked(cursor: CursorWrapper, entry: int, kind: str) -> Any:
    """Take the locks of a change, in their order."""
    locks.share(cursor, kind)
    cursor.execute(
        """SELECT 1 FROM queues_queue WHERE id = (SELECT queue_id FROM queues_entry WHERE id = %s)
               FOR NO KEY UPDATE""",
        [entry],
    )
    return cursor.fetchone()
