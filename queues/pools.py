"""Declared capacity: an operator names aggregates, their hosts and what each host has.

Shrinking below what is used is accepted: nothing is admitted there until the excess is gone. What is removed
is kept as nothing (totals of 0), because entries may still hold it and because it was there once: an entry
that it could have held is not told that it never fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import locks
from queues.models import Aggregate
from workers.messages import doorbell
from workers.models import Tenant
from workers.vocabulary.errors import InvalidInput, NotFound

#: {resource: thousandths} of a host.
Amounts = Mapping[str, int]

_AGGREGATE: Final = """
    INSERT INTO queues_aggregate (type, name) VALUES (%s, %s)
    ON CONFLICT (type, name) DO UPDATE SET removed_at = NULL RETURNING id, xmax = 0
"""
_HOSTS: Final = """
    INSERT INTO queues_host (aggregate_id, name) SELECT %s, unnest(%s::text[])
    ON CONFLICT (aggregate_id, name) DO UPDATE SET removed_at = NULL RETURNING name, id
"""
#: In the order in which ends lock them (queues.admission.booking).
_LOCK: Final = """
    SELECT 1 FROM queues_hostresource r JOIN queues_host h ON h.id = r.host_id
    WHERE h.aggregate_id = %s ORDER BY r.id FOR NO KEY UPDATE OF r
"""
#: Whatever a host has had and is not told of now is gone.
_GONE: Final = """
    UPDATE queues_hostresource r SET total = 0, outside = 0 FROM queues_host h
    WHERE h.id = r.host_id AND h.aggregate_id = %s
"""
_HOSTS_GONE: Final = """
    UPDATE queues_host SET removed_at = now()
    WHERE aggregate_id = %s AND removed_at IS NULL AND NOT name = ANY(%s)
"""
_TOTALS: Final = """
    INSERT INTO queues_hostresource AS r (host_id, name, total, largest, outside)
    SELECT n.host_id, n.name, n.total, n.total, n.outside
    FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[]) AS n(host_id, name, total, outside)
    ORDER BY 1, 2
    ON CONFLICT (host_id, name) DO UPDATE SET total = excluded.total, outside = excluded.outside,
        largest = greatest(r.largest, excluded.total)
"""
_BACK_IN_LINE: Final = """
    UPDATE queues_waitingclass c SET aside = false FROM queues_queue q
    WHERE q.id = c.queue_id AND q.type = %s AND c.aside
"""


@dataclass(frozen=True)
class HostAmounts:
    """A host with what it has, and what others use of it (0 with declared pools)."""

    name: str
    total: Amounts
    outside: Amounts


def declare(kind: str, name: str, hosts: Iterable[HostAmounts], tenants: Iterable[str] = ()) -> bool:
    """Declare an aggregate, or replace what was declared of it; returns whether it is new.

    ``tenants``: names of those who may use it, none = all. InvalidInput names one that is not there.
    """
    wanted = sorted(set(tenants))
    with transaction.atomic(), connection.cursor() as cursor:
        found = dict(Tenant.objects.filter(name__in=wanted).values_list("name", "pk"))
        for tenant in wanted:
            if tenant not in found:
                raise InvalidInput(f"tenants: there is no tenant {tenant}", field="tenants")
        locks.share(cursor, kind)
        aggregate_id, new = write(cursor, kind, name, list(hosts))
        Aggregate.objects.get(pk=aggregate_id).tenants.set(found.values())
        back_in_line(cursor, kind)
    return new


def write(cursor: CursorWrapper, kind: str, name: str, hosts: list[HostAmounts]) -> tuple[int, bool]:
    """Write what an aggregate consists of now; (its id, is it new?). The caller shares the type's lock."""
    cursor.execute(_AGGREGATE, [kind, name])
    aggregate_id, new = cursor.fetchone()
    names = [host.name for host in hosts]
    _empty(cursor, aggregate_id, names)
    if hosts:
        cursor.execute(_HOSTS, [aggregate_id, names])
        ids = dict(cursor.fetchall())
        rows = [
            (ids[host.name], resource, amount, host.outside.get(resource, 0))
            for host in hosts
            for resource, amount in host.total.items()
        ]
        cursor.execute(_TOTALS, [[row[index] for row in rows] for index in range(4)])
    return aggregate_id, new


def remove(kind: str, name: str) -> None:
    """Take an aggregate away; what it holds stays booked until it ends. NotFound when it is not there."""
    with transaction.atomic(), connection.cursor() as cursor:
        locks.share(cursor, kind)
        if not clear(cursor, kind, name):
            raise NotFound(f"type {kind} has no aggregate {name}")
        doorbell.ring_duties_after_commit()


def clear(cursor: CursorWrapper, kind: str, name: str) -> bool:
    """An aggregate is not there any more; False when it was not. The caller holds the type's lock."""
    cursor.execute(
        """UPDATE queues_aggregate SET removed_at = now()
           WHERE type = %s AND name = %s AND removed_at IS NULL RETURNING id""",
        [kind, name],
    )
    row = cursor.fetchone()
    if row is None:
        return False
    _empty(cursor, row[0], [])
    return True


def _empty(cursor: CursorWrapper, aggregate_id: int, names: list[str]) -> None:
    """Nothing is there any more; hosts of these names stay."""
    cursor.execute(_LOCK, [aggregate_id])
    cursor.execute(_GONE, [aggregate_id])
    cursor.execute(_HOSTS_GONE, [aggregate_id, names])


def back_in_line(cursor: CursorWrapper, kind: str) -> None:
    """Capacity may have grown: what was set aside is looked at again."""
    cursor.execute(_BACK_IN_LINE, [kind])
    doorbell.ring_duties_after_commit()
