"""What is declared and used, as facts for ``queues.operators.shapes``: a fixed number of statements each.

``Sight`` says whose eyes: a tenant sees aggregates that it may use and counts of its own entries, an operator
all. Amounts are thousandths. Must not import views.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from queues.models import TypePolicy
from queues.operators import providers

#: A name that every other one is above.
_START: Final = ""

_POOLS: Final = """
    SELECT a.id, a.name, a.removed_at IS NOT NULL, ARRAY(
        SELECT n.name FROM queues_aggregate_tenants t JOIN workers_tenant n ON n.id = t.tenant_id
        WHERE t.aggregate_id = a.id AND (%(all)s OR n.id = %(tenant)s) ORDER BY n.name)
    FROM queues_aggregate a
    WHERE a.type = %(type)s AND a.name > %(after)s AND (%(name)s::text IS NULL OR a.name = %(name)s)
        AND (%(gone)s OR a.removed_at IS NULL)
        AND (%(all)s OR NOT EXISTS (SELECT 1 FROM queues_aggregate_tenants t WHERE t.aggregate_id = a.id)
            OR EXISTS (SELECT 1 FROM queues_aggregate_tenants t
                       WHERE t.aggregate_id = a.id AND t.tenant_id = %(tenant)s))
    ORDER BY a.name LIMIT %(most)s
"""
#: Hosts that are there, and those that are gone while something still holds a part of them. Resources that
#: nobody has declared (any more) and nobody uses are not told.
_HOSTS: Final = """
    SELECT h.aggregate_id, h.name, h.removed_at IS NOT NULL,
        array_agg(r.name ORDER BY r.name) FILTER (WHERE r.id IS NOT NULL),
        array_agg(r.total ORDER BY r.name) FILTER (WHERE r.id IS NOT NULL),
        array_agg(r.outside + r.held ORDER BY r.name) FILTER (WHERE r.id IS NOT NULL)
    FROM queues_host h
    LEFT JOIN queues_hostresource r ON r.host_id = h.id AND (r.total > 0 OR r.outside + r.held > 0)
    WHERE h.aggregate_id = ANY(%s)
    GROUP BY h.id HAVING h.removed_at IS NULL OR count(r.id) > 0 ORDER BY h.aggregate_id, h.name
"""
_STANDING: Final = """
    SELECT coalesce(p.mode, %(mode)s), coalesce(p.provider, %(provider)s), coalesce(p.trouble, ''),
        CASE WHEN coalesce(p.provider, 'pools') = 'pools' THEN now() ELSE p.heard_at END,
        (SELECT coalesce(sum(c.waiting), 0)::bigint FROM queues_waitingclass c
            JOIN queues_queue q ON q.id = c.queue_id
            WHERE q.type = %(type)s AND (%(all)s OR q.tenant_id = %(tenant)s)),
        (SELECT count(*) FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
            WHERE e.status = 'running' AND q.type = %(type)s AND (%(all)s OR q.tenant_id = %(tenant)s))
    FROM (SELECT) one LEFT JOIN queues_typepolicy p ON p.type = %(type)s
"""
_QUOTAS: Final = """
    SELECT h.owner_id,
        array_agg(h.resource ORDER BY h.resource), array_agg(h.quota ORDER BY h.resource),
        array_agg(h.held ORDER BY h.resource)
    FROM queues_ownerholding h JOIN queues_queue q ON q.id = h.queue_id
    WHERE q.type = %(type)s AND q.tenant_id = %(tenant)s AND (h.held > 0 OR h.quota IS NOT NULL)
        AND h.owner_id > %(after)s AND (%(owner)s::text IS NULL OR h.owner_id = %(owner)s)
    GROUP BY h.owner_id HAVING %(owner)s::text IS NOT NULL OR count(h.quota) > 0
    ORDER BY h.owner_id LIMIT %(most)s
"""


class Sight(NamedTuple):
    """Who looks: a tenant, or (``everything``) somebody with the scope operate."""

    tenant_id: int
    everything: bool


class HostFacts(NamedTuple):
    """``removed``: it is not declared any more, and shown only for what is still held there."""

    name: str
    removed: bool
    resources: list[str]
    totals: list[int]
    used: list[int]


class PoolFacts(NamedTuple):
    """An aggregate. ``tenants``: who may use it, as far as the asker may know; none = everybody."""

    name: str
    removed: bool
    tenants: list[str]
    hosts: list[HostFacts]


class Standing(NamedTuple):
    """A type at a glance."""

    mode: str
    provider: str
    trouble: str
    as_of: datetime | None
    waiting: int
    running: int


class OwnerFacts(NamedTuple):
    """What an owner may have and has; the three lists go together."""

    owner_id: str
    resources: list[str]
    quotas: list[int | None]
    held: list[int]


def pools(
    kind: str, sight: Sight, *, after: str = _START, name: str | None = None, most: int
) -> list[PoolFacts]:
    """The first ``most`` declared aggregates whose name is above ``after``, by name; or the one of a name."""
    return [_declared(found) for found in _pools(kind, sight, after=after, name=name, most=most)]


def pool(kind: str, sight: Sight, name: str) -> PoolFacts | None:
    """One declared aggregate."""
    return next(iter(pools(kind, sight, name=name, most=1)), None)


def used_pools(kind: str, sight: Sight) -> list[PoolFacts]:
    """All aggregates with what is used of them, also removed ones where something still runs."""
    found = _pools(kind, sight, gone=True, most=None)
    return [pool for pool in found if pool.hosts or not pool.removed]


def standing(kind: str, sight: Sight) -> Standing:
    """Policy and counts of a type; the tenant's own entries, or everybody's."""
    with connection.cursor() as cursor:
        cursor.execute(
            _STANDING,
            {
                "type": kind,
                "tenant": sight.tenant_id,
                "all": sight.everything,
                "mode": providers.MODE,
                "provider": providers.PROVIDER,
            },
        )
        return Standing._make(cursor.fetchone())


def policy(kind: str) -> tuple[str, str, dict[str, Any]]:
    """(mode, provider, options that may be shown) of a type; the defaults without a row."""
    row = TypePolicy.objects.filter(type=kind).first()
    if row is None:
        return providers.MODE, providers.PROVIDER, {}
    return row.mode, row.provider, row.options


def quotas(tenant_id: int, kind: str, *, after: str = _START, most: int) -> list[OwnerFacts]:
    """The first ``most`` owners with a quota above ``after``, by owner."""
    return _quotas({"tenant": tenant_id, "type": kind, "after": after, "owner": None, "most": most})


def quota(tenant_id: int, kind: str, owner_id: str) -> OwnerFacts | None:
    """What one owner may have and has; None when it has no quota and holds nothing."""
    found = _quotas({"tenant": tenant_id, "type": kind, "after": _START, "owner": owner_id, "most": 1})
    return found[0] if found else None


def _pools(
    kind: str,
    sight: Sight,
    *,
    after: str = _START,
    name: str | None = None,
    gone: bool = False,
    most: int | None,
) -> list[PoolFacts]:
    with connection.cursor() as cursor:
        cursor.execute(
            _POOLS,
            {
                "type": kind,
                "tenant": sight.tenant_id,
                "all": sight.everything,
                "after": after,
                "name": name,
                "gone": gone,
                "most": most,
            },
        )
        rows = cursor.fetchall()
        cursor.execute(_HOSTS, [[row[0] for row in rows]])
        hosts = _by_aggregate(cursor.fetchall())
    return [PoolFacts(name, removed, tenants, hosts[pk]) for pk, name, removed, tenants in rows]


def _by_aggregate(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[HostFacts]]:
    found: dict[int, list[HostFacts]] = defaultdict(list)
    for aggregate, name, removed, resources, totals, used in rows:
        found[aggregate].append(HostFacts(name, removed, resources or [], totals or [], used or []))
    return found


def _declared(pool: PoolFacts) -> PoolFacts:
    return pool._replace(hosts=[host for host in pool.hosts if not host.removed])


def _quotas(params: dict[str, Any]) -> list[OwnerFacts]:
    with connection.cursor() as cursor:
        cursor.execute(_QUOTAS, params)
        return [OwnerFacts._make(row) for row in cursor.fetchall()]
