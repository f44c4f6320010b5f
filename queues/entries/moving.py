"""Moving a queued entry: to a Priority, or directly before or behind another one.

Neighbours are what stands there without the moved entry. Other entries keep their Priority, always. Source:
contract page 50, "Priority". Must not import views, HTTP or the worker's side.
"""

from __future__ import annotations

from typing import Final

from django.db.backends.utils import CursorWrapper

from queues import order
from queues.entries import rows
from queues.entries.rows import Place
from queues.entries.wire import PRIORITY_MOST, QUEUED, MoveRequest
from workers.vocabulary.errors import Conflict

_NEIGHBOUR: Final = """
    SELECT id, status, priority, tie, waiting_class_id FROM queues_entry
    WHERE queue_id = %s AND status = 'queued' AND (priority, tie) {than} (%s, %s) AND id <> %s
    ORDER BY priority {way}, tie {way} LIMIT 1
"""
_BEFORE: Final = _NEIGHBOUR.format(than="<", way="DESC")
_BEHIND: Final = _NEIGHBOUR.format(than=">", way="ASC")
_WRITE: Final = """
    UPDATE queues_entry SET priority = %s, tie = %s, updated_at = statement_timestamp()
    WHERE id = %s AND status = 'queued'
"""
_HIGHEST: Final = "UPDATE queues_queue SET highest = %s WHERE id = %s AND highest < %s"


def move(tenant_id: int, kind: str, request_id: str, to: MoveRequest) -> None:
    """Move an entry. NoSuchEntry; Conflict where it, or the one to stand beside, is not queued."""
    with rows.changing(kind) as cursor:
        queue_id = rows.lock(cursor, tenant_id, kind, request_id)
        entry = _queued(rows.find(cursor, queue_id, request_id), request_id)
        beside = (to.before, "before") if to.before is not None else (to.after or "", "after")
        if to.priority is not None:
            tie = rows.behind(cursor, queue_id, to.priority, entry.id)
            _write(cursor, queue_id, entry, to.priority, tie)
            return
        other = _queued(rows.find(cursor, queue_id, *beside), beside[0])
        if other.id == entry.id:
            return
        cursor.execute(
            _BEFORE if to.before is not None else _BEHIND,
            [queue_id, other.priority, other.tie, entry.id],
        )
        row = cursor.fetchone()
        further = Place._make(row) if row is not None else None
        left, right = (further, other) if to.before is not None else (other, further)
        _write(cursor, queue_id, entry, *_between(cursor, queue_id, entry, left, right))


def place(left: Place | None, right: Place | None) -> tuple[int, str]:
    """Priority and tie between two neighbours that stand in this order; one of them may be missing.

    Their floored mean where that is between them, else the left one's number, behind it; in front of all, one
    less than the first.
    """
    if left is None:
        if right is None:
            raise ValueError("a place between nothing and nothing")
        if right.priority > -PRIORITY_MOST:
            return right.priority - 1, order.ALONE
        return right.priority, order.between("", right.tie)
    if right is not None:
        mean = (left.priority + right.priority) // 2
        if left.priority < mean < right.priority:
            return mean, order.ALONE
    shares = right is not None and right.priority == left.priority
    return left.priority, order.between(left.tie, right.tie if right is not None and shares else None)


def _between(
    cursor: CursorWrapper, queue_id: int, entry: Place, left: Place | None, right: Place | None
) -> tuple[int, str]:
    priority, tie = place(left, right)
    if len(tie) <= order.LONGEST:
        return priority, tie
    position = 0

    def arrange(ids: list[int]) -> list[int]:
        nonlocal position
        position = ids.index(left.id) + 1 if left is not None and left.priority == priority else 0
        return [*ids[:position], 0, *ids[position:]]

    ties = rows.deal(cursor, queue_id, priority, arrange, entry.id)
    return priority, ties[position]


def _write(cursor: CursorWrapper, queue_id: int, entry: Place, priority: int, tie: str) -> None:
    cursor.execute(_WRITE, [priority, tie, entry.id])
    cursor.execute(_HIGHEST, [priority, queue_id, priority])


def _queued(entry: Place, request_id: str) -> Place:
    if entry.status != QUEUED:
        raise Conflict(f"request {request_id} is {entry.status}: only queued ones have a place to move")
    return entry
