"""What entries were told, and what became of it: bounded rows by type. The only writer of both tables.

Must not import views.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from django.db.backends.utils import CursorWrapper

from queues.estimates.calibration import WINDOW, Outcome, steered
from queues.estimates.estimate import Estimate

#: Told entries that still wait; while there are so many, no further ones are told for the calibration.
OPEN: Final = 1000
#: Known outcomes that are kept of a type.
KEPT: Final = 2 * WINDOW
#: How far back, in ids, entries are looked for that have been told nothing yet.
_RECENT: Final = 5000

_OPEN: Final = """
    SELECT t.entry_id, t.type, t.p90_s, t.raw_s, t.missed, e.id IS NULL OR e.status = 'cancelled',
        e.admitted_at, extract(epoch FROM e.admitted_at - t.made_at)::float8,
        extract(epoch FROM clock_timestamp() - t.made_at)::float8
    FROM queues_told t LEFT JOIN queues_entry e ON e.id = t.entry_id
    WHERE t.waited_s IS NULL ORDER BY t.entry_id LIMIT %s
"""
_KNOWN: Final = """
    UPDATE queues_told t SET missed = n.missed, waited_s = n.waited, admitted_at = n.admitted_at
    FROM unnest(%s::bigint[], %s::bool[], %s::float8[], %s::timestamptz[])
        AS n(entry_id, missed, waited, admitted_at)
    WHERE t.entry_id = n.entry_id
"""
_TILT: Final = """
    INSERT INTO queues_calibration AS c (type, tilt) VALUES (%s, %s)
    ON CONFLICT (type) DO UPDATE SET tilt = excluded.tilt
"""
_PRUNE: Final = """
    DELETE FROM queues_told WHERE entry_id IN (
        SELECT entry_id FROM queues_told WHERE type = %s AND waited_s IS NOT NULL
        ORDER BY admitted_at DESC OFFSET %s LIMIT 1000)
"""
#: The newest that wait and have been told nothing; only what came after the last one that was told.
_NEW: Final = """
    SELECT e.id, q.type, e.waiting_class_id, e.priority, e.tie,
        extract(epoch FROM clock_timestamp() - e.created_at)::float8, clock_timestamp()
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
    WHERE e.id > greatest((SELECT max(entry_id) FROM queues_told), (SELECT max(id) FROM queues_entry) - %s)
        AND e.status = 'queued' AND (SELECT count(*) FROM queues_told WHERE waited_s IS NULL) < %s
    ORDER BY e.id DESC LIMIT %s
"""
_WRITE: Final = """
    INSERT INTO queues_told (entry_id, type, p50_s, p90_s, raw_s, method, made_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_OUTCOMES: Final = """
    SELECT p50_s, p90_s, waited_s, method FROM queues_told WHERE type = %s AND waited_s IS NOT NULL
    ORDER BY admitted_at DESC LIMIT %s
"""


def new(cursor: CursorWrapper, most: int) -> list[tuple[Any, ...]]:
    """(id, type, class, priority, tie, s since its submission, now) of entries that are to be told."""
    cursor.execute(_NEW, [_RECENT, OPEN, most])
    return list(cursor.fetchall())


def write(cursor: CursorWrapper, entry: int, kind: str, found: Estimate, made_at: Any) -> None:
    cursor.execute(_WRITE, [entry, kind, found.p50, found.p90, found.raw, found.method, made_at])


def tilt(cursor: CursorWrapper, kind: str) -> float:
    """The logarithm of the factor of a type's bounds."""
    cursor.execute("SELECT tilt FROM queues_calibration WHERE type = %s", [kind])
    row = cursor.fetchone()
    return float(row[0]) if row else 0.0


def outcomes(cursor: CursorWrapper, kind: str) -> list[Outcome]:
    """The last ones of a type that were admitted."""
    cursor.execute(_OUTCOMES, [kind, WINDOW])
    return [Outcome(*row) for row in cursor.fetchall()]


def settle(cursor: CursorWrapper) -> int:
    """Learn from those that were admitted, or wait longer than they were told; returns how many."""
    cursor.execute(_OPEN, [OPEN])
    known: list[tuple[Any, ...]] = []
    gone: list[int] = []
    #: Type of which something became known -> of each forecast, when (s after it was told), and whether it
    #: was missed.
    learned: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for entry, kind, p90, raw, missed, withdrawn, admitted_at, waited, age in cursor.fetchall():
        if admitted_at is None and withdrawn:
            gone.append(entry)
        elif admitted_at is not None or (missed is None and age > p90):
            over = bool(missed) or (age if waited is None else waited) > p90
            known.append((entry, over, None if waited is None else max(0.0, waited), admitted_at))
            news = learned[kind]
            if missed is None and raw:
                # The oldest news first.
                news.append((age - (p90 if over else waited or 0.0), over))
    if gone:
        cursor.execute("DELETE FROM queues_told WHERE entry_id = ANY(%s)", [gone])
    if known:
        cursor.execute(_KNOWN, [[row[index] for row in known] for index in range(4)])
    for kind, news in sorted(learned.items()):
        in_order = [over for _, over in sorted(news, reverse=True)]
        cursor.execute(_TILT, [kind, steered(tilt(cursor, kind), in_order)])
        cursor.execute(_PRUNE, [kind, KEPT])
    return len(known)
