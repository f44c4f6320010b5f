"""Declared capacity: an operator names aggregates, their hosts and what each host has.

Shrinking below what is used is accepted: nothing is admitted there until the excess is gone. What is removed
is kept as nothing (totals of 0), because entries may still hold it and because it was there once: an entry
that it could have held is not told that it never fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    INSERT INTO queues_aggregate AS a (type, name) VALUES (%s, %s)
    ON CONFLICT (type, name) DO UPDATE SET removed_at = NULL
    RETURNING id, NOT EXISTS (
        SELECT 1 FROM queues_aggregate b WHERE b.id = a.id AND b.removed_at IS NULL)
"""
_HOSTS: Final = "SELECT id, name, removed_at IS NOT NULL FROM queues_host WHERE aggregate_id = %s"
_HOSTS_CHANGED: Final = """
    UPDATE queues_host SET removed_at = CASE WHEN removed_at IS NULL THEN now() END
    WHERE id = ANY(%s::bigint[])
"""
_HOSTS_NEW: Final = """
    INSERT INTO queues_host (aggregate_id, name) SELECT %s, unnest(%s::text[]) RETURNING id, name
"""
_RESOURCES: Final = """
    SELECT r.host_id, r.name, r.id, r.total, r.outside
    FROM queues_hostresource r JOIN queues_host h ON h.id = r.host_id WHERE h.aggregate_id = %s
"""
#: Locked in the order in which bookings are given back, so that neither waits for the other for ever.
_RESOURCES_CHANGED: Final = """
    WITH changed AS MATERIALIZED (
        SELECT r.id, n.total, n.outside FROM queues_hostresource r
        JOIN unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS n(id, total, outside) ON n.id = r.id
        ORDER BY r.id FOR NO KEY UPDATE OF r)
    UPDATE queues_hostresource r
    SET total = c.total, outside = c.outside, largest = greatest(r.largest, c.total)
    FROM changed c WHERE r.id = c.id
"""
_RESOURCES_NEW: Final = """
    INSERT INTO queues_hostresource (host_id, name, total, largest, outside)
    SELECT n.host_id, n.name, n.total, n.total, n.outside
    FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[]) AS n(host_id, name, total, outside)
"""
#: Of one type, a bounded number: hosts that are gone for so long and of which nothing is held; then
#: aggregates without hosts. Not those that only some tenants may use: all might when they come back.
_GONE: Final = """
    SELECT h.id FROM queues_host h JOIN queues_aggregate a ON a.id = h.aggregate_id
    WHERE a.type = %s AND h.removed_at < now() - %s * interval '1 second' AND NOT EXISTS (
        SELECT 1 FROM queues_hostresource r JOIN queues_booking b ON b.resource_id = r.id
        WHERE r.host_id = h.id)
    ORDER BY h.id LIMIT 1000 FOR UPDATE OF h
"""
_EMPTY: Final = """
    DELETE FROM queues_aggregate a
    WHERE a.type = %s AND a.removed_at < now() - %s * interval '1 second'
        AND NOT EXISTS (SELECT 1 FROM queues_host h WHERE h.aggregate_id = a.id)
        AND NOT EXISTS (SELECT 1 FROM queues_aggregate_tenants t WHERE t.aggregate_id = a.id)
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
    """Declare an aggregate, or replace what was declared of it; returns whether it is new (or was removed).

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
    _write_hosts(cursor, aggregate_id, hosts)
    return aggregate_id, new


def _write_hosts(cursor: CursorWrapper, aggregate_id: int, hosts: list[HostAmounts]) -> None:
    """Only what differs is written: there may be 10,000 hosts, and a provider tells of all every few seconds.

    The aggregate's row is locked by this transaction: nobody else writes its hosts, and of their resources
    others write what is held alone.
    """
    names = {host.name for host in hosts}
    cursor.execute(_HOSTS, [aggregate_id])
    ids: dict[str, int] = {}
    changed = []
    for host_id, name, removed in cursor.fetchall():
        ids[name] = host_id
        if removed == (name in names):
            changed.append(host_id)
    if changed:
        cursor.execute(_HOSTS_CHANGED, [changed])
    if new := sorted(names - ids.keys()):
        cursor.execute(_HOSTS_NEW, [aggregate_id, new])
        ids |= {name: host_id for host_id, name in cursor.fetchall()}
    _write_resources(
        cursor,
        aggregate_id,
        {
            (ids[host.name], resource): (amount, host.outside.get(resource, 0))
            for host in hosts
            for resource, amount in host.total.items()
        },
    )


def _write_resources(
    cursor: CursorWrapper, aggregate_id: int, wanted: dict[tuple[int, str], tuple[int, int]]
) -> None:
    """``wanted``: (host id, resource) -> (total, outside). What a host has had and is not in it is gone."""
    cursor.execute(_RESOURCES, [aggregate_id])
    changed = []
    for host_id, name, resource_id, *before in cursor.fetchall():
        now = wanted.pop((host_id, name), (0, 0))
        if now != tuple(before):
            changed.append((resource_id, *now))
    if changed:
        cursor.execute(_RESOURCES_CHANGED, _columns(changed))
    if wanted:
        cursor.execute(_RESOURCES_NEW, _columns([(*key, *amounts) for key, amounts in wanted.items()]))


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


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
    _write_hosts(cursor, row[0], [])
    return True


def forget(cursor: CursorWrapper, kind: str, after_s: float) -> int:
    """Delete hosts that have been gone for so long and hold nothing; how many. The caller has the lock alone.

    What they once had counts no more for what never fits.
    """
    cursor.execute(_GONE, [kind, after_s])
    gone = [row[0] for row in cursor.fetchall()]
    if gone:
        cursor.execute("DELETE FROM queues_hostresource WHERE host_id = ANY(%s)", [gone])
        cursor.execute("DELETE FROM queues_host WHERE id = ANY(%s)", [gone])
    cursor.execute(_EMPTY, [kind, after_s])
    return len(gone)


def back_in_line(cursor: CursorWrapper, kind: str) -> None:
    """Capacity may have grown: what was set aside is looked at again."""
    cursor.execute(_BACK_IN_LINE, [kind])
    doorbell.ring_duties_after_commit()
