"""What operators change: pools, policies, quotas. One transaction each, under the type's lock, then a ring.

The API and the admin's pages both come here. Must not import views.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import locks, pools
from queues.entries import classes
from queues.models import Aggregate, Queue, TypePolicy
from queues.operators import providers, reading
from queues.operators.parsing import PolicyRequest, PoolRequest
from queues.operators.reading import OwnerFacts, PoolFacts, Sight
from workers import secrets
from workers.messages import doorbell
from workers.vocabulary.errors import Conflict, NotFound

_QUEUE: Final = (
    "INSERT INTO queues_queue (tenant_id, type) VALUES (%s, %s) ON CONFLICT (type, tenant_id) DO NOTHING"
)
_LOCK: Final = "SELECT id FROM queues_queue WHERE tenant_id = %s AND type = %s FOR NO KEY UPDATE"
#: What is held is admission's business: only the quota is written. ``changed_at`` tells of what is held, too.
_SET: Final = """
    INSERT INTO queues_ownerholding (queue_id, owner_id, resource, quota)
    SELECT %s, %s, n.resource, n.quota FROM unnest(%s::text[], %s::bigint[]) AS n(resource, quota) ORDER BY 3
    ON CONFLICT (queue_id, owner_id, resource) DO UPDATE SET quota = excluded.quota
"""
_CLEAR: Final = """
    UPDATE queues_ownerholding SET quota = NULL
    WHERE queue_id = %s AND owner_id = %s AND quota IS NOT NULL AND NOT resource = ANY(%s)
"""
_CLEAR_ONE: Final = """
    UPDATE queues_ownerholding SET quota = NULL WHERE queue_id = %s AND owner_id = %s AND resource = %s
"""
#: An operator's own view of what it has just written.
_ALL: Final = Sight(0, True)


def declare_pool(kind: str, wanted: PoolRequest) -> tuple[bool, PoolFacts]:
    """Declare an aggregate or replace it; (is it new?, as it is now). Conflict: its provider is another."""
    structlog.contextvars.bind_contextvars(aggregate=wanted.aggregate)  # for the audit log
    with transaction.atomic(), connection.cursor() as cursor:
        _check_declared(cursor, kind)
        new = pools.declare(kind, wanted.aggregate, wanted.hosts, wanted.tenants)
        # Its row is ours until the commit: nobody takes it away meanwhile.
        found = reading.pools(kind, _ALL, name=wanted.aggregate, most=1)
    return new, found[0]


def remove_pool(kind: str, aggregate: str) -> PoolFacts:
    """Take an aggregate away; returns it as it was. NotFound when it is not there."""
    with transaction.atomic(), connection.cursor() as cursor:
        _check_declared(cursor, kind)
        Aggregate.objects.select_for_update(no_key=True).filter(type=kind, name=aggregate).first()
        found = reading.pool(kind, _ALL, aggregate)
        if found is None:
            raise no_pool(kind, aggregate)
        pools.remove(kind, aggregate)
    return found


def no_pool(kind: str, aggregate: str) -> NotFound:
    return NotFound(f"type {kind} has no aggregate {aggregate[:255]}")


def no_quota(kind: str, owner_id: str) -> NotFound:
    return NotFound(f"the owner {owner_id[:255]} has no quota of type {kind}")


def set_policy(kind: str, wanted: PolicyRequest, tenant_id: int | None = None) -> TypePolicy:
    """Change how a type is admitted; what is None stays. InvalidInput for an option that is wrong.

    A provider's password or token, the option ``secret``, is kept among the secrets of ``tenant_id``; it is
    never shown, and stays until another one is given.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        # Alone: nobody submits meanwhile what is asked of the provider before.
        locks.change_alone(cursor, kind)
        TypePolicy.objects.bulk_create([_default(kind)], ignore_conflicts=True)
        row = TypePolicy.objects.select_for_update(no_key=True).get(type=kind)
        provider = wanted.provider or row.provider
        if provider != row.provider:
            # What the one before said is not true of this one.
            row.options, row.asked_at, row.heard_at, row.trouble = {}, None, None, ""
            _forget_secret(row)
        if wanted.options or provider != row.provider:
            _set_options(row, provider, dict(wanted.options), tenant_id)
        if provider != row.provider:
            classes.ask_anew(cursor, kind, provider)
        row.provider, row.mode = provider, wanted.mode or row.mode
        row.save()
        pools.back_in_line(cursor, kind)
    return row


def _set_options(row: TypePolicy, provider: str, given: dict[str, Any], tenant_id: int | None) -> None:
    """Put these options in the place of all that there were, but for a secret that is not given anew."""
    kept = {} if row.secret_id is None else {"secret": secrets.reveal(row.secret_id)}
    providers.check(provider, {**kept, **given})
    secret = given.pop("secret", None)
    if secret is not None and tenant_id is not None:
        _forget_secret(row)
        row.secret_id = secrets.store(tenant_id, "provider", secret)
    row.options = given


def _forget_secret(row: TypePolicy) -> None:
    if row.secret is not None:
        gone, row.secret = row.secret, None
        gone.delete()


def set_quotas(tenant_id: int, kind: str, owner_id: str, amounts: Mapping[str, int]) -> OwnerFacts:
    """Give an owner these quotas, in thousandths, in the place of all it had; returns what it has now."""
    with transaction.atomic(), connection.cursor() as cursor:
        queue = _queue(cursor, tenant_id, kind)
        cursor.execute(_CLEAR, [queue, owner_id, list(amounts)])
        cursor.execute(_SET, [queue, owner_id, list(amounts), list(amounts.values())])
        doorbell.ring_duties_after_commit()
        found = reading.quota(tenant_id, kind, owner_id)
    return found or OwnerFacts(owner_id, [], [], [])


def remove_quotas(tenant_id: int, kind: str, owner_id: str) -> OwnerFacts:
    """Let an owner have as much as there is; returns what it holds. NotFound when it has no quota."""
    before = reading.quota(tenant_id, kind, owner_id)
    if before is None or not any(quota is not None for quota in before.quotas):
        raise no_quota(kind, owner_id)
    return set_quotas(tenant_id, kind, owner_id, {})


def set_one_quota(queue: Queue, owner_id: str, resource: str, amount: int | None) -> None:
    """Change the quota of one resource alone; None = no quota."""
    structlog.contextvars.bind_contextvars(owner_id=owner_id)  # for the audit log
    with transaction.atomic(), connection.cursor() as cursor:
        queue_id = _queue(cursor, queue.tenant_id, queue.type)
        if amount is None:
            cursor.execute(_CLEAR_ONE, [queue_id, owner_id, resource])
        else:
            cursor.execute(_SET, [queue_id, owner_id, [resource], [amount]])
        doorbell.ring_duties_after_commit()


def _check_declared(cursor: CursorWrapper, kind: str) -> None:
    """Share the type's lock. What a provider reports is not declared: its next answer would undo it."""
    locks.share(cursor, kind)
    found = TypePolicy.objects.filter(type=kind).values_list("provider", flat=True).first()
    if found is not None and found != providers.PROVIDER:
        raise Conflict(
            f"the capacity of type {kind} is what its provider {found} reports; "
            f"to declare it instead, PUT /api/v1/queues/{kind}/policy with the provider pools"
        )


def _queue(cursor: CursorWrapper, tenant_id: int, kind: str) -> int:
    """Take the locks of a change, in their order: the type's, the queue's row, which is made if need be."""
    locks.share(cursor, kind)
    cursor.execute(_QUEUE, [tenant_id, kind])
    cursor.execute(_LOCK, [tenant_id, kind])
    return int(cursor.fetchone()[0])


def _default(kind: str) -> TypePolicy:
    return TypePolicy(type=kind, mode=providers.MODE, provider=providers.PROVIDER, trouble="")
