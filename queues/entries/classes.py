"""What those who wait ask for, worked out anew: their type's capacity comes from another provider now.

Must not import views.
"""

from __future__ import annotations

import json
from typing import Final

from django.db.backends.utils import CursorWrapper

from queues import needs
from queues.admission.booking import need_from

#: Of each class one entry: all of it ask for the same.
_CLASSES: Final = """
    SELECT c.id, c.queue_id, c.owner_id, c.aggregate, c.needs, c.waiting, e.data
    FROM queues_waitingclass c JOIN queues_queue q ON q.id = c.queue_id
    CROSS JOIN LATERAL (
        SELECT data FROM queues_entry WHERE waiting_class_id = c.id AND status = 'queued' LIMIT 1) e
    WHERE q.type = %s AND c.waiting > 0
"""
#: The class that entries go to; of what runs and has ended it stays as it was: that is what they hold.
_JOIN: Final = """
    INSERT INTO queues_waitingclass AS c (queue_id, owner_id, needs, aggregate, digest, waiting)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (queue_id, digest) DO UPDATE SET waiting = c.waiting + excluded.waiting
    RETURNING id
"""
_MOVE: Final = """
    UPDATE queues_entry SET waiting_class_id = %s WHERE waiting_class_id = %s AND status = 'queued'
"""


def join(
    cursor: CursorWrapper, queue_id: int, owner_id: str, need: needs.Need, aggregate: str, count: int = 1
) -> int:
    """So many more entries wait in the class of these; its id."""
    digest = needs.digest(owner_id, need, aggregate)
    cursor.execute(_JOIN, [queue_id, owner_id, json.dumps(need), aggregate, digest, count])
    (class_id,) = cursor.fetchone() or (0,)
    return int(class_id)


def ask_anew(cursor: CursorWrapper, kind: str, provider: str) -> None:
    """All that wait of a type ask for what this provider wants asked for. The caller has its lock alone."""
    cursor.execute(_CLASSES, [kind])
    for class_id, queue_id, owner_id, aggregate, stored, waiting, data in cursor.fetchall():
        need = needs.asked_of(provider, needs.need_of(kind, json.loads(data)))
        if need == need_from(stored):
            continue
        new = join(cursor, queue_id, owner_id, need, aggregate, waiting)
        cursor.execute(_MOVE, [new, class_id])
        cursor.execute("UPDATE queues_waitingclass SET waiting = 0 WHERE id = %s", [class_id])
