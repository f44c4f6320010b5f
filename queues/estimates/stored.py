"""What estimates are made from, read in a few bounded statements that have their indexes.

Entries of all tenants of the type: they run on the same hosts. Must not import views.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from django.db.backends.utils import CursorWrapper

from queues.admission import packing
from queues.admission.asked import Asked
from queues.admission.booking import need_from
from queues.admission.decide import Aggregate, Snapshot
from queues.admission.search import ESTIMATED, Patience
from queues.estimates.forward import Running, Scene
from queues.estimates.runtimes import Ended, RunTimes
from queues.needs import Need

#: Running entries that are played; where more run, the oldest.
RUNNING: Final = 1000
#: Ended entries that are read of each queue, and of a type, the newest.
_PAST_OF_QUEUE: Final = 300
PAST: Final = 500
#: Entries ahead that are counted one by one.
_COUNTED: Final = 1000

_RUNNING: Final = """
    SELECT e.id, e.queue_id, e.owner_id, c.needs, extract(epoch FROM now() - e.admitted_at)::float8,
        e.aggregate, CASE WHEN e.data LIKE '%%"duration"%%' THEN e.data END
    FROM queues_queue q CROSS JOIN LATERAL (
        SELECT * FROM queues_entry r
        WHERE r.queue_id = q.id AND r.status = 'running' AND (%(where)s = '' OR r.aggregate = %(where)s)
        ORDER BY r.admitted_at, r.id LIMIT %(most)s) e
    JOIN queues_waitingclass c ON c.id = e.waiting_class_id
    WHERE q.type = %(type)s ORDER BY e.admitted_at LIMIT %(most)s
"""
_HOLDS: Final = """
    SELECT b.entry_id, r.host_id, r.name, b.amount
    FROM queues_booking b JOIN queues_hostresource r ON r.id = b.resource_id WHERE b.entry_id = ANY(%s)
"""
_PAST: Final = """
    SELECT e.owner_id, c.needs, extract(epoch FROM e.admitted_at - e.created_at)::float8,
        extract(epoch FROM e.ended_at - e.admitted_at)::float8
    FROM queues_queue q CROSS JOIN LATERAL (
        SELECT * FROM queues_entry p
        WHERE p.queue_id = q.id AND p.status = 'finished' AND p.ended_at IS NOT NULL
        ORDER BY p.ended_at DESC LIMIT %s) e
    JOIN queues_waitingclass c ON c.id = e.waiting_class_id
    WHERE q.type = %s AND e.admitted_at IS NOT NULL ORDER BY e.ended_at DESC LIMIT %s
"""
_DECLARED: Final = """
    SELECT id, data FROM queues_entry WHERE id = ANY(%s) AND data LIKE '%%"duration"%%'
"""
#: Of the nearest ones, those that have not been set aside.
_AHEAD: Final = """
    SELECT count(*), count(*) FILTER (WHERE NOT c.aside) FROM (
        SELECT waiting_class_id FROM queues_entry
        WHERE queue_id = %s AND status = 'queued' AND (priority, tie) < (%s, %s)
        ORDER BY priority DESC, tie DESC LIMIT %s) near
    JOIN queues_waitingclass c ON c.id = near.waiting_class_id
"""


def past(cursor: CursorWrapper, kind: str) -> list[Ended]:
    """The entries of a type that have ended, the newest first."""
    cursor.execute(_PAST, [_PAST_OF_QUEUE, kind, PAST])
    return [Ended(owner, need_from(needs), waited, ran) for owner, needs, waited, ran in cursor.fetchall()]


def running(cursor: CursorWrapper, kind: str, seen: Snapshot, aggregate: str = "") -> list[Running]:
    """What runs of a type (in one aggregate; "" = in all), and what of the hosts becomes free with it."""
    cursor.execute(_RUNNING, {"type": kind, "where": aggregate, "most": RUNNING})
    rows = cursor.fetchall()
    cursor.execute(_HOLDS, [[row[0] for row in rows]])
    held: dict[int, list[tuple[int, str, int]]] = defaultdict(list)
    for entry, host, name, amount in cursor.fetchall():
        held[entry].append((host, name, amount))
    there = {each.name: each for each in seen.aggregates}
    patience = Patience(ESTIMATED)
    return [
        Running(
            entry, queue, owner, need_from(needs), age, _duration(data),
            tuple(held.get(entry) or _outside(need_from(needs), there.get(aggregate), patience)),
        )
        for entry, queue, owner, needs, age, aggregate, data in rows
    ]  # fmt: skip


def scene(cursor: CursorWrapper, asked: Asked, runs: list[Running], runtimes: RunTimes) -> Scene:
    """The scene of one entry."""
    heads = [head.id for each in asked.snapshot.classes for head in each.heads]
    cursor.execute(_DECLARED, [heads])
    declared = {entry: _duration(data) for entry, data in cursor.fetchall()}
    caps = {entry: seconds for entry, seconds in declared.items() if seconds is not None}
    return Scene(asked, _ahead(cursor, asked), runs, runtimes, caps)


def _ahead(cursor: CursorWrapper, asked: Asked) -> int:
    """How many of its queue are before it; beyond a limit all that wait are taken to be."""
    queue, head = asked.cls.queue, asked.head
    cursor.execute(_AHEAD, [queue, head.priority, head.tie, _COUNTED + 1])
    all_, count = cursor.fetchone() or (0, 0)
    if all_ <= _COUNTED:
        return int(count)
    return max(count, sum(each.count for each in asked.snapshot.classes if each.queue == queue) - 1)


def _duration(data: str | None) -> float | None:
    """What its client declared; any number is read, so that no text can be in the way."""
    found = json.loads(data, parse_int=float).get("duration") if data else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _outside(need: Need, aggregate: Aggregate | None, patience: Patience) -> Iterable[tuple[int, str, int]]:
    """Where its provider counts it: our booking has ended, so some hosts that have so much in use."""
    hosts = aggregate.hosts if aggregate is not None else ()
    used = [{name: host.total[name] - host.free.get(name, 0) for name in host.total} for host in hosts]
    for index, count, size in packing.pack(need, used, patience).placed or ():
        for name, amount in size:
            yield hosts[index].id, name, count * amount
