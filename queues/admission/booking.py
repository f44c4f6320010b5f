"""What running entries hold: of hosts, and of their owners' quotas. The only writer of held amounts.

Locks, in this order: the type's (queues.locks), the queue's row, the hosts' resources by id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from django.db.backends.utils import CursorWrapper

from queues.admission.decide import Admission
from queues.needs import Need, total

#: Takes what is wanted from the hosts and writes the bookings. ``left``, what is free afterwards, is checked
#: by the table: where a host has less than was thought, nothing of it all is done.
_TAKE: Final = """
    WITH wanted AS (
        SELECT w.entry_id, r.id AS resource_id, sum(w.amount)::bigint AS amount
        FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[])
            AS w(entry_id, host_id, name, amount)
        JOIN queues_hostresource r ON r.host_id = w.host_id AND r.name = w.name
        GROUP BY w.entry_id, r.id),
    sums AS (SELECT resource_id, sum(amount)::bigint AS amount FROM wanted GROUP BY resource_id),
    taken AS (
        UPDATE queues_hostresource r SET held = r.held + s.amount FROM sums s WHERE r.id = s.resource_id
        RETURNING r.id, r.total - r.outside - r.held AS left_over)
    INSERT INTO queues_booking (entry_id, resource_id, amount, "left")
    SELECT w.entry_id, w.resource_id, w.amount, t.left_over FROM wanted w JOIN taken t ON t.id = w.resource_id
"""
_LOCK: Final = """
    SELECT 1 FROM queues_hostresource
    WHERE id IN (SELECT resource_id FROM queues_booking WHERE entry_id = ANY(%s))
    ORDER BY id FOR NO KEY UPDATE
"""
_RELEASE: Final = """
    WITH gone AS (DELETE FROM queues_booking WHERE entry_id = ANY(%s) RETURNING resource_id, amount),
    sums AS (SELECT resource_id, sum(amount)::bigint AS amount FROM gone GROUP BY resource_id)
    UPDATE queues_hostresource r SET held = r.held - s.amount FROM sums s WHERE r.id = s.resource_id
"""
_OWN: Final = """
    INSERT INTO queues_ownerholding AS h (queue_id, owner_id, resource, held)
    SELECT o.queue_id, o.owner_id, o.resource, sum(o.amount)::bigint
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) AS o(queue_id, owner_id, resource, amount)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (queue_id, owner_id, resource) DO UPDATE SET held = h.held + excluded.held, changed_at = now()
"""
_DISOWN: Final = """
    WITH gone AS (
        SELECT o.queue_id, o.owner_id, o.resource, sum(o.amount)::bigint AS amount
        FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[])
            AS o(queue_id, owner_id, resource, amount)
        GROUP BY 1, 2, 3)
    UPDATE queues_ownerholding h SET held = h.held - g.amount, changed_at = now() FROM gone g
    WHERE h.queue_id = g.queue_id AND h.owner_id = g.owner_id AND h.resource = g.resource
"""
_NEEDS: Final = """
    SELECT e.queue_id, e.owner_id, c.needs
    FROM queues_entry e JOIN queues_waitingclass c ON c.id = e.waiting_class_id
    WHERE e.id = ANY(%s)
"""


class Overbooked(Exception):
    """A host or a resource on which something was to be booked is not there any more."""


def take(cursor: CursorWrapper, admissions: Sequence[Admission]) -> None:
    """Book what these entries were given. IntegrityError or Overbooked: nothing may be kept of it."""
    wanted = [
        (admission.entry, host, name, count * amount)
        for admission in admissions
        for host, count, size in admission.places
        for name, amount in size
    ]
    cursor.execute(_TAKE, _columns(wanted, 4))
    if cursor.rowcount != len({row[:3] for row in wanted}):
        raise Overbooked(f"{len(wanted)} amounts were to be booked, {cursor.rowcount} could be")
    owned = [
        (each.cls.queue, each.cls.owner, name, amount)
        for each in admissions
        for name, amount in total(each.cls.need).items()
    ]
    cursor.execute(_OWN, _columns(owned, 4))


def hand_over(cursor: CursorWrapper, entry_ids: list[int]) -> None:
    """Their provider counts from now on what they use: our bookings end, their owners' holdings stay."""
    cursor.execute(_LOCK, [entry_ids])
    cursor.execute(_RELEASE, [entry_ids])


def give_back(cursor: CursorWrapper, entry_ids: list[int]) -> None:
    """Give back all that entries hold. The caller has just ended them, which happens once."""
    hand_over(cursor, entry_ids)
    cursor.execute(_NEEDS, [entry_ids])
    held = [
        (queue, owner, name, amount)
        for queue, owner, needs in cursor.fetchall()
        for name, amount in total(need_from(needs)).items()
    ]
    cursor.execute(_DISOWN, _columns(held, 4))


def need_from(stored: str) -> Need:
    """A need as ``queues.needs`` has it, from the JSON text of its class."""
    return tuple(
        (count, tuple((name, amount) for name, amount in size)) for count, size in json.loads(stored)
    )


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [[row[index] for row in rows] for index in range(width)]
