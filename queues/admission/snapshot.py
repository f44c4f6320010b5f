"""The bounded snapshot that a decision is made of, read in a handful of statements.

Its size does not grow with the queue: at most ``CLASSES`` classes, of each the first few entries and its
count; and the class of the entry for which an aggregate is kept, wherever that stands. Where more wait, they
are windows of as many, in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from queues.admission.booking import need_from
from queues.admission.decide import Aggregate, Class, Head, Host, Reservation, Snapshot

#: Most classes of waiting entries that one decision looks at.
CLASSES: Final = 200
#: Among so many live classes, the longest known, those with the first entries are found.
_WINDOWS: Final = 10
_LIVE: Final = _WINDOWS * CLASSES
#: Entries that are read in all; a class has at least two of them.
_HEADS: Final = 800

_POLICY: Final = """
    SELECT mode = 'strict', provider, trouble, extract(epoch FROM clock_timestamp() - heard_at)::float8
    FROM queues_typepolicy WHERE type = %s
"""
_HOSTS: Final = """
    SELECT a.name, a.removed_at IS NOT NULL,
        (SELECT array_agg(t.tenant_id) FROM queues_aggregate_tenants t WHERE t.aggregate_id = a.id),
        h.id, h.name, r.name, r.total, r.total - r.outside - r.held, r.largest
    FROM queues_aggregate a
    LEFT JOIN queues_host h ON h.aggregate_id = a.id
    LEFT JOIN queues_hostresource r ON r.host_id = h.id
    WHERE a.type = %s ORDER BY a.name, h.name, r.name
"""
#: The first entry of each live class; of those, tenant by tenant in turn, the first ones.
_CHOSEN: Final = """
    WITH live AS (
        SELECT c.id, c.queue_id, q.tenant_id, c.owner_id, c.needs, c.aggregate, c.waiting, c.aside
        FROM queues_waitingclass c JOIN queues_queue q ON q.id = c.queue_id
        WHERE q.type = %(type)s AND c.waiting > 0 AND NOT c.aside ORDER BY c.aside, c.id
        LIMIT %(live)s OFFSET %(passed)s),
    firsts AS (
        SELECT live.*, row_number() OVER (PARTITION BY live.queue_id ORDER BY f.priority, f.tie) AS turn
        FROM live CROSS JOIN LATERAL (
            SELECT e.priority, e.tie FROM queues_entry e
            WHERE e.waiting_class_id = live.id AND e.status = 'queued' ORDER BY e.priority, e.tie LIMIT 1) f)
    SELECT id, queue_id, tenant_id, owner_id, needs, aggregate, waiting FROM firsts
    ORDER BY aside, turn, id LIMIT %(classes)s + 1 OFFSET %(before)s
"""
#: Those that can go nowhere, too, behind the others.
_CHOSEN_ALL: Final = _CHOSEN.replace("AND NOT c.aside", "")
_ONE: Final = """
    SELECT c.id, c.queue_id, q.tenant_id, c.owner_id, c.needs, c.aggregate, c.waiting
    FROM queues_waitingclass c JOIN queues_queue q ON q.id = c.queue_id WHERE c.id = %s
"""
_FIRST: Final = """
    SELECT c.id, e.id, e.priority, e.tie, extract(epoch FROM e.created_at)::float8
    FROM unnest(%s::bigint[]) AS c(id) CROSS JOIN LATERAL (
        SELECT * FROM queues_entry e WHERE e.waiting_class_id = c.id AND e.status = 'queued'
        ORDER BY e.priority, e.tie LIMIT %s) e
    ORDER BY c.id, e.priority, e.tie
"""
_SHARES: Final = """
    SELECT queue_id, resource, sum(held)::bigint FROM queues_ownerholding
    WHERE queue_id = ANY(%s) AND held > 0 GROUP BY 1, 2
"""
_OWNERS: Final = """
    SELECT h.queue_id, h.owner_id, h.resource, h.held, h.quota
    FROM unnest(%s::bigint[], %s::text[]) AS o(queue_id, owner_id)
    JOIN queues_ownerholding h ON h.queue_id = o.queue_id AND h.owner_id = o.owner_id
"""
_RESERVED: Final = """
    SELECT e.waiting_class_id, e.id, e.reserved, extract(epoch FROM e.reserved_at)::float8
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
    WHERE e.reserved <> '' AND e.status = 'queued' AND q.type = %s ORDER BY e.reserved_at LIMIT 1
"""


def read(
    cursor: CursorWrapper, kind: str, *, also: int | None = None, aside: bool = False, window: int = 0
) -> Snapshot:
    """What there is and what waits of a type.

    ``also``: a class that is looked at in any case; ``aside``: look at what was set aside, too, for questions
    in which capacity grows; ``window``: of more classes than one snapshot has, the first ones are 0.
    """
    cursor.execute(_POLICY, [kind])
    strict, *provider = cursor.fetchone() or (True, "pools", "", None)
    aggregates = _aggregates(cursor, kind)
    cursor.execute(_RESERVED, [kind])
    kept, *reserved = cursor.fetchone() or (None,)
    blocks, windows = divmod(window, _WINDOWS)
    span = {"live": _LIVE, "passed": blocks * _LIVE, "classes": CLASSES, "before": windows * CLASSES}
    cursor.execute(_CHOSEN_ALL if aside else _CHOSEN, {"type": kind, **span})
    rows = cursor.fetchall()
    approximate = window > 0 or len(rows) > CLASSES
    rows = rows[:CLASSES]
    for one in {kept, also} - {None, *(row[0] for row in rows)}:
        cursor.execute(_ONE, [one])
        rows += cursor.fetchall()
    classes = _classes(cursor, rows)
    held, quotas, shares = _holdings(cursor, classes)
    return Snapshot(
        strict=strict,
        aggregates=aggregates,
        classes=classes,
        held=held,
        quotas=quotas,
        shares=shares,
        reservation=Reservation(*reserved) if reserved else None,
        trouble=_trouble(*provider),
        approximate=approximate,
    )


def _trouble(provider: str, trouble: str, age_s: float | None) -> str:
    """Why what is known of the capacity is too old to decide on; "" = it is not."""
    if provider == "pools" or (age_s is not None and age_s <= settings.GANTRY_QUEUE_STALE_S):
        return ""
    heard = "never" if age_s is None else f"{age_s:.0f} s ago"
    return f"{provider} was heard {heard}" + (f": {trouble}" if trouble else "")


def _aggregates(cursor: CursorWrapper, kind: str) -> tuple[Aggregate, ...]:
    cursor.execute(_HOSTS, [kind])
    found: dict[str, tuple[bool, frozenset[int] | None, dict[int, Host]]] = {}
    for name, removed, tenants, host_id, host, resource, total, free, largest in cursor.fetchall():
        allowed = frozenset(tenants) if tenants else None
        hosts = found.setdefault(name, (removed, allowed, {}))[2]
        if host_id is None:
            continue
        here = hosts.setdefault(host_id, Host(host_id, host, {}, {}, {}))
        if resource is not None:
            for amounts, amount in ((here.total, total), (here.free, free), (here.largest, largest)):
                amounts[resource] = amount  # type: ignore[index]  # being built
    return tuple(
        Aggregate(name, tuple(hosts.values()), tenants, removed)
        for name, (removed, tenants, hosts) in found.items()
    )


def _classes(cursor: CursorWrapper, rows: list[tuple[Any, ...]]) -> tuple[Class, ...]:
    ids = [row[0] for row in rows]
    heads: dict[int, list[Head]] = defaultdict(list)
    if ids:
        cursor.execute(_FIRST, [ids, max(2, _HEADS // len(ids))])
        for class_id, entry, priority, tie, since in cursor.fetchall():
            heads[class_id].append(Head(entry, priority, tie, since))
    return tuple(
        Class(class_id, queue, tenant, owner, need_from(needs), bound, tuple(heads[class_id]), count)
        for class_id, queue, tenant, owner, needs, bound, count in rows
        if heads[class_id]
    )


Amounts = dict[str, int]


def _holdings(
    cursor: CursorWrapper, classes: Iterable[Class]
) -> tuple[dict[tuple[int, str], Amounts], dict[tuple[int, str], Amounts], dict[int, Amounts]]:
    """What the owners of these classes hold, what they may, and what all of each queue hold."""
    owners = sorted({(each.queue, each.owner) for each in classes})
    queues = sorted({queue for queue, _ in owners})
    held: dict[tuple[int, str], Amounts] = defaultdict(dict)
    quotas: dict[tuple[int, str], Amounts] = defaultdict(dict)
    shares: dict[int, Amounts] = defaultdict(dict)
    if owners:
        cursor.execute(_OWNERS, [[queue for queue, _ in owners], [owner for _, owner in owners]])
        for queue, owner, resource, amount, quota in cursor.fetchall():
            held[queue, owner][resource] = amount
            if quota is not None:
                quotas[queue, owner][resource] = quota
        cursor.execute(_SHARES, [queues])
        for queue, resource, amount in cursor.fetchall():
            shares[queue][resource] = amount
    return dict(held), dict(quotas), dict(shares)
