"""The verbs of the queues family but the move (``queues.entries.moving``): create, end, confirm.

One transaction each. Everything takes the tenant and sees nothing of others. Must not import views, HTTP or
the worker's side.
"""

from __future__ import annotations

import hashlib
from typing import Final, NoReturn

from django.db.backends.utils import CursorWrapper

from queues import needs, order
from queues.admission import booking
from queues.entries import classes, rows
from queues.entries.errors import CallbackTaken, RequestIdTaken
from queues.entries.reading import COLUMNS
from queues.entries.wire import PRIORITY_MOST, QUEUED, RUNNING, EntryFacts, EntryRequest
from workers.vocabulary.errors import Conflict

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
#: The queue, locked and made if need be, and the next Priority: the clock, but above all that there were. And
#: whose capacity it waits for.
_NEXT: Final = f"""
    INSERT INTO queues_queue AS q (tenant_id, type, highest) VALUES (%(tenant)s, %(type)s, {_NOW})
    ON CONFLICT (type, tenant_id)
        DO UPDATE SET highest = least(%(most)s, greatest(q.highest + 1, {_NOW}))
    RETURNING id, highest,
        (SELECT coalesce(max(p.provider), '') FROM queues_typepolicy p WHERE p.type = q.type)
"""
#: Nothing where the id was removed less than a year ago, or id or callback are taken.
_INSERT: Final = f"""
    INSERT INTO queues_entry AS e (queue_id, waiting_class_id, request_id, owner_id, data, callback,
        callback_digest, deliverable, priority, tie)
    SELECT %(queue)s, %(class)s, %(request)s, %(owner)s, %(data)s, %(callback)s, %(digest)s, %(deliverable)s,
        %(priority)s, %(tie)s
    WHERE NOT EXISTS (SELECT 1 FROM queues_tombstone
        WHERE queue_id = %(queue)s AND request_id = %(request)s AND until > now())
    ON CONFLICT DO NOTHING
    RETURNING {COLUMNS.format(type="%(type)s")}
"""
_WITHDRAW: Final = """
    WITH gone AS (
        UPDATE queues_entry SET status = 'cancelled', ended_at = statement_timestamp(),
            updated_at = statement_timestamp(), reserved = '', reserved_at = NULL
        WHERE id = %s AND status = 'queued' RETURNING waiting_class_id)
    UPDATE queues_waitingclass c SET waiting = c.waiting - 1 FROM gone WHERE c.id = gone.waiting_class_id
"""
_FINISH: Final = """
    UPDATE queues_entry SET status = 'finished', ended_at = statement_timestamp(),
        updated_at = statement_timestamp()
    WHERE id = %s AND status = 'running'
"""
#: A hold that has ended already stays ended when it did; one of whom nobody has told yet ends, too.
_CONFIRM: Final = """
    UPDATE queues_entry e SET updated_at = statement_timestamp(),
        told_at = coalesce(told_at, statement_timestamp()),
        hold_ends_at = CASE WHEN hold_ends_at IS NOT NULL OR (
                EXISTS (SELECT 1 FROM queues_booking b WHERE b.entry_id = e.id)
                AND EXISTS (SELECT 1 FROM queues_queue q JOIN queues_typepolicy p ON p.type = q.type
                    WHERE q.id = e.queue_id AND p.provider <> 'pools'))
            THEN least(hold_ends_at, statement_timestamp()) END
    WHERE id = %s AND status = 'running'
"""


def create(tenant_id: int, kind: str, wanted: EntryRequest) -> EntryFacts:
    """Queue a request behind everything that waits. RequestIdTaken, CallbackTaken."""
    with rows.changing(kind) as cursor:
        cursor.execute(_NEXT, {"tenant": tenant_id, "type": kind, "most": PRIORITY_MOST})
        queue_id, priority, provider = cursor.fetchone() or (0, 0, "")
        need = needs.asked_of(provider, wanted.need)
        class_id = classes.join(cursor, queue_id, wanted.owner_id, need, wanted.aggregate)
        values = {
            "queue": queue_id,
            "class": class_id,
            "type": kind,
            "request": wanted.request_id,
            "owner": wanted.owner_id,
            "data": wanted.data,
            "callback": wanted.callback,
            "digest": _digest(wanted.callback),
            "deliverable": wanted.deliverable,
            "priority": priority,
            # The largest number there is may be held by others: behind them.
            "tie": order.ALONE if priority < PRIORITY_MOST else rows.behind(cursor, queue_id, priority),
        }
        cursor.execute(_INSERT, values)
        row = cursor.fetchone()
        if row is None:
            _refuse(cursor, queue_id, wanted)
        return EntryFacts(*row)


def end(tenant_id: int, kind: str, request_id: str) -> None:
    """Withdraw a queued entry, or finish a running one and give back what it holds. Conflict: it ended."""
    with rows.changing(kind) as cursor:
        queue_id = rows.lock(cursor, tenant_id, kind, request_id)
        entry = rows.find(cursor, queue_id, request_id)
        if entry.status == QUEUED:
            cursor.execute(_WITHDRAW, [entry.id])
        elif entry.status == RUNNING:
            cursor.execute(_FINISH, [entry.id])
            booking.give_back(cursor, [entry.id])
        else:
            raise Conflict(f"request {request_id} is {entry.status} already")


def confirm(tenant_id: int, kind: str, request_id: str) -> None:
    """The client has what it was admitted for: a hold on an external provider ends. Conflict: not running."""
    with rows.changing(kind) as cursor:
        queue_id = rows.lock(cursor, tenant_id, kind, request_id)
        entry = rows.find(cursor, queue_id, request_id)
        if entry.status != RUNNING:
            raise Conflict(f"request {request_id} is {entry.status}: only a running one can be confirmed")
        cursor.execute(_CONFIRM, [entry.id])


def _digest(callback: str) -> str:
    return hashlib.sha256(callback.encode()).hexdigest()


def _refuse(cursor: CursorWrapper, queue_id: int, wanted: EntryRequest) -> NoReturn:
    """Say why nothing could be written; the transaction ends with it."""
    cursor.execute(
        "SELECT status, ended_at FROM queues_entry WHERE queue_id = %s AND request_id = %s",
        [queue_id, wanted.request_id],
    )
    if row := cursor.fetchone():
        what = row[0] if row[1] is None else f"{row[0]} since {row[1]:%Y-%m-%dT%H:%M:%SZ}"
        raise RequestIdTaken(
            f"request_id {wanted.request_id} is taken: that request is {what}; use a new id",
            field="request_id",
        )
    cursor.execute(
        """SELECT request_id FROM queues_entry
           WHERE queue_id = %s AND callback_digest = %s AND status IN ('queued', 'running')""",
        [queue_id, _digest(wanted.callback)],
    )
    if row := cursor.fetchone():
        raise CallbackTaken(
            f"callback is taken by request {row[0]}, which has not ended: use another URL", field="callback"
        )
    raise RequestIdTaken(
        f"request_id {wanted.request_id} was used by a request that has been deleted since: use a new id",
        field="request_id",
    )
