"""The rows that every change of a queue begins with: the lock of the type, the queue, the entry.

Locks, in this order: the type's (queues.locks), the queue's row; then admission's, which the caller takes.
Must not import views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import locks, order
from queues.entries.errors import NoSuchEntry
from workers.messages import doorbell

#: Locks the queue's row. The lock leaves foreign keys to it alone.
_LOCK: Final = """
    SELECT id FROM queues_queue WHERE type = %s AND tenant_id = %s FOR NO KEY UPDATE
"""


class Place(NamedTuple):
    """An entry of a locked queue, with what orders it."""

    id: int
    status: str
    priority: int
    tie: str
    waiting_class: int


@contextmanager
def changing(kind: str) -> Iterator[CursorWrapper]:
    """One transaction that changes entries of a type; whoever admits looks again when it has committed."""
    with transaction.atomic(), connection.cursor() as cursor:
        locks.share(cursor, kind)
        yield cursor
        doorbell.ring_duties_after_commit()


def lock(cursor: CursorWrapper, tenant_id: int, kind: str, request_id: str) -> int:
    """The id of the queue, locked. NoSuchEntry: there is none, so ``request_id`` is not in it."""
    cursor.execute(_LOCK, [kind, tenant_id])
    row = cursor.fetchone()
    if row is None:
        raise NoSuchEntry(request_id)
    return int(row[0])


def find(cursor: CursorWrapper, queue_id: int, request_id: str, field: str | None = None) -> Place:
    """The entry of a locked queue. NoSuchEntry names the field that asked for it."""
    cursor.execute(
        """SELECT id, status, priority, tie, waiting_class_id FROM queues_entry
           WHERE queue_id = %s AND request_id = %s""",
        [queue_id, request_id],
    )
    row = cursor.fetchone()
    if row is None:
        raise NoSuchEntry(request_id, field=field)
    return Place._make(row)


def behind(cursor: CursorWrapper, queue_id: int, priority: int, but: int = 0) -> str:
    """The tie of a place behind all queued entries of a Priority, ``but`` for one; short enough to keep."""
    cursor.execute(
        """SELECT tie FROM queues_entry
           WHERE queue_id = %s AND status = 'queued' AND priority = %s AND id <> %s
           ORDER BY tie DESC LIMIT 1""",
        [queue_id, priority, but],
    )
    last = cursor.fetchone()
    if last is None:
        return order.ALONE
    tie = order.between(last[0], None)
    if len(tie) <= order.LONGEST:
        return tie
    group = deal(cursor, queue_id, priority, lambda ids: [*ids, 0], but)
    return group[-1]


def deal(
    cursor: CursorWrapper,
    queue_id: int,
    priority: int,
    arrange: Callable[[list[int]], list[int]],
    but: int = 0,
) -> list[str]:
    """Deal the ties of a Priority anew; nobody sees it. ``arrange`` puts a newcomer (0) among the ids.

    Returns the ties in that order; the newcomer's is free. An entry ``but`` that has this Priority is put out
    of the way: the caller gives it the newcomer's place.
    """
    cursor.execute(
        """SELECT id FROM queues_entry
           WHERE queue_id = %s AND status = 'queued' AND priority = %s AND id <> %s ORDER BY tie""",
        [queue_id, priority, but],
    )
    ids = arrange([row[0] for row in cursor.fetchall()])
    ties = order.dealt(len(ids))
    # In two steps, since each row is checked by itself: "~" is behind every key.
    cursor.execute(
        """UPDATE queues_entry SET tie = '~' || tie
           WHERE queue_id = %s AND status = 'queued' AND priority = %s""",
        [queue_id, priority],
    )
    cursor.execute(
        """UPDATE queues_entry e SET tie = n.tie FROM unnest(%s::bigint[], %s::text[]) AS n(id, tie)
           WHERE e.id = n.id""",
        [ids, ties],
    )
    return ties
