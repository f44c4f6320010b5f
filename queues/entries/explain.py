"""Why an entry waits, since when, who is before it and what would change that.

One snapshot and a few bounded reads; asked of the same decision that admits (queues.admission). Other tenants
appear as sums without names. Must not import views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from queues.admission import reasons, snapshot
from queues.admission.asked import ask
from queues.admission.decide import Head, Level, Snapshot
from queues.admission.reasons import Holder
from queues.entries.errors import NoSuchEntry
from queues.estimates import service as estimates
from queues.models import Entry
from queues.needs import shown

#: How far back a position is counted; beyond it the answer says that it is more.
POSITION_LIMIT: Final = 1000
#: Own entries that are named: running ones that could be ended, waiting ones that are ahead.
NAMED: Final = 20

_AHEAD: Final = """
    SELECT count(*), (array_agg(request_id ORDER BY priority, tie))[1:%(named)s] FROM (
        SELECT request_id, priority, tie FROM queues_entry
        WHERE queue_id = %(queue)s AND status = 'queued' AND (priority, tie) < (%(priority)s, %(tie)s)
        ORDER BY priority DESC, tie DESC LIMIT %(limit)s) near
"""
_OTHERS: Final = """
    SELECT coalesce(sum(c.waiting), 0) FROM queues_waitingclass c JOIN queues_queue q ON q.id = c.queue_id
    WHERE q.type = %s AND q.id <> %s AND c.waiting > 0 AND NOT c.aside
"""
_HOLDERS: Final = """
    SELECT e.request_id, e.owner_id, e.admitted_at, r.host_id, r.name, b.amount
    FROM (SELECT * FROM queues_entry WHERE queue_id = %s AND status = 'running'
          ORDER BY admitted_at, id LIMIT %s) e
    JOIN queues_booking b ON b.entry_id = e.id JOIN queues_hostresource r ON r.id = b.resource_id
    ORDER BY e.admitted_at, e.id
"""
_OTHERS_HOLD: Final = """
    SELECT h.resource, sum(h.held)::bigint FROM queues_ownerholding h JOIN queues_queue q ON q.id = h.queue_id
    WHERE q.type = %s AND q.id <> %s AND h.held > 0 GROUP BY 1 ORDER BY 1
"""


def explain(tenant_id: int, kind: str, request_id: str) -> dict[str, Any]:
    """The explanation of page 00, with more beside it. NoSuchEntry where the tenant has no such entry."""
    entry = (
        Entry.objects.select_related("waiting_class")
        .filter(queue__tenant_id=tenant_id, queue__type=kind, request_id=request_id)
        .first()
    )
    if entry is None:
        raise NoSuchEntry(request_id)
    if entry.status != Entry.Status.QUEUED:
        return _not_waiting(entry)
    with connection.cursor() as cursor:
        seen = snapshot.read(cursor, kind, also=entry.waiting_class_id, aside=True)
        if entry.waiting_class_id not in {each.id for each in seen.classes}:
            return {**_base(entry), "reasons": [], "position": None}  # it has just gone
        return _waiting(cursor, entry, kind, seen)


def _waiting(cursor: CursorWrapper, entry: Entry, kind: str, seen: Snapshot) -> dict[str, Any]:
    asked = ask(seen, entry.waiting_class_id, Head(entry.pk, entry.priority, entry.tie))
    holders, since = _holders(cursor, entry.queue_id)
    mine = {head.id for each in seen.classes if each.queue == entry.queue_id for head in each.heads}
    verdict = asked.verdict(asked.decision)
    names: dict[int, str] = {}
    if verdict.blocked_by in mine:
        names = dict(Entry.objects.filter(pk=verdict.blocked_by).values_list("pk", "request_id"))
    found = reasons.reason(asked, names.get, holders)
    if verdict.level == Level.EVALUATING and not _somebody_looks(cursor):
        found = reasons.Reason(
            "no_worker", "no worker looks at the queues now", remedy="start manage.py node"
        )
    position, ahead = _ahead(cursor, entry, kind)
    reserved = (
        {"aggregate": entry.reserved, "since": entry.reserved_at}
        if entry.reserved and entry.reserved_at
        else None
    )
    estimate = estimates.of(cursor, kind, asked, (timezone.now() - entry.created_at).total_seconds())
    bound = estimates.bound_of(cursor, kind, asked) if verdict.level == Level.NO_CAPACITY else None
    if bound is not None:
        found.message += f". {bound.text()}"
        estimate = _within(estimate, bound.shown().get("bound_s"))
    return {
        **_base(entry),
        "estimate": estimate,
        "bound": bound.shown() if bound else None,
        "reasons": [{"level": str(verdict.level), **asdict(found)}],
        "position": position,
        "approximate": seen.approximate or position is None or bool(verdict.unsure),
        "ahead": ahead,
        "reserved": reserved,
        "running": {
            "own": [
                {
                    "request_id": each.request_id,
                    "since": since[each.request_id],
                    "holds": _shown(each.amounts),
                }
                for each in holders
            ],
            "others": _others_hold(cursor, entry.queue_id, kind),
        },
    }


def _within(estimate: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    """No guess is later than what is certain."""
    if seconds is None:
        return estimate
    most = round(seconds, 1)
    return {key: min(value, most) if key in ("p50_s", "p90_s") else value for key, value in estimate.items()}


def _somebody_looks(cursor: CursorWrapper) -> bool:
    """Workers admit: one has been heard lately."""
    cursor.execute(
        """SELECT EXISTS (SELECT 1 FROM workers_node WHERE NOT detached AND mode <> 'removed'
               AND heartbeat_at > now() - %s * interval '1 second')""",
        [settings.GANTRY_LEASE_S],
    )
    (heard,) = cursor.fetchone()
    return bool(heard)


def _base(entry: Entry) -> dict[str, Any]:
    return {
        "state": entry.status,
        "since": entry.created_at,
        "reasons": [],
        "position": None,
        "estimate": {"unknown": "because its turn has just come"} if entry.status == "queued" else None,
    }


def _not_waiting(entry: Entry) -> dict[str, Any]:
    """What runs or has ended waits for nothing; why it failed is said."""
    found = {**_base(entry), "since": entry.ended_at or entry.admitted_at or entry.created_at}
    if entry.message:
        told = reasons.Reason(
            "callback", entry.message, remedy="submit it again with a callback that answers 2xx"
        )
        found["reasons"] = [{"level": entry.status, **asdict(told)}]
    return found


def _ahead(cursor: CursorWrapper, entry: Entry, kind: str) -> tuple[int | None, dict[str, Any]]:
    """Its place among its tenant's entries, from 1 on (None = far behind), and who is before it."""
    cursor.execute(
        _AHEAD,
        {
            "queue": entry.queue_id,
            "priority": entry.priority,
            "tie": entry.tie,
            "limit": POSITION_LIMIT + 1,
            "named": NAMED,
        },
    )
    count, named = cursor.fetchone()
    cursor.execute(_OTHERS, [kind, entry.queue_id])
    (others,) = cursor.fetchone()
    more = count > POSITION_LIMIT
    ahead = {
        "own": named or [],
        "own_count": min(count, POSITION_LIMIT),
        "more": more,
        "others_waiting": int(others),
    }
    return (None if more else count + 1), ahead


def _holders(cursor: CursorWrapper, queue_id: int) -> tuple[Sequence[Holder], dict[str, datetime]]:
    cursor.execute(_HOLDERS, [queue_id, NAMED])
    found: dict[str, tuple[str, dict[int, dict[str, int]], dict[str, int]]] = {}
    since: dict[str, datetime] = {}
    for request_id, owner, admitted_at, host, resource, amount in cursor.fetchall():
        _, hosts, amounts = found.setdefault(request_id, (owner, {}, {}))
        hosts.setdefault(host, {})[resource] = amount
        amounts[resource] = amounts.get(resource, 0) + amount
        since[request_id] = admitted_at
    return [Holder(request_id, *parts) for request_id, parts in found.items()], since


def _others_hold(cursor: CursorWrapper, queue_id: int, kind: str) -> dict[str, int | float]:
    cursor.execute(_OTHERS_HOLD, [kind, queue_id])
    return _shown(dict(cursor.fetchall()))


def _shown(amounts: dict[str, int] | Any) -> dict[str, int | float]:
    return {resource: shown(amount) for resource, amount in sorted(amounts.items())}
