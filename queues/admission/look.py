"""A look: decide on the waiting entries of a type, and admit. Booking, status and callback are one commit.

Several processes may look at once: the type's lock lets one decide at a time. What somebody else admitted is
not waiting any more. Must not import views.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any, Final

import structlog
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import bodies, locks
from queues.admission import booking, snapshot
from queues.admission.decide import Admission, Decision, Level, Snapshot, decide
from workers.callbacks import outbox
from workers.vocabulary.duties import one_by_one

log = structlog.get_logger(__name__)

#: A look that cannot have the type's lock for so long is left to the next one, in ms: while it waits, changes
#: of the type wait behind it. Each time twice as long as before, from the first to the last of these: so long
#: changes that follow one another keep nobody from being admitted for ever.
_PATIENCE_MS: Final = (1000, 4000)
#: Type -> which of its further windows of classes this process looks at next, where not all are in the first.
_windows: dict[str, int] = {}
#: Rounds of one look: more than this waits for the next one, so that no type keeps the others waiting.
_ROUNDS: Final = 50

_TYPES: Final = """
    SELECT DISTINCT q.type FROM queues_queue q
    WHERE EXISTS (
        SELECT 1 FROM queues_waitingclass c WHERE c.queue_id = q.id AND c.waiting > 0 AND NOT c.aside)
    ORDER BY q.type
"""
_ADMITTED: Final = """
    SELECT e.id, e.data, e.request_id, q.type, e.owner_id, e.callback, e.deliverable, q.tenant_id
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
    WHERE e.id = ANY(%s) AND e.status = 'queued' FOR NO KEY UPDATE OF e SKIP LOCKED
"""
#: A microsecond each from one moment on: their order is kept where they are listed by admission.
_RUN: Final = """
    UPDATE queues_entry e SET status = 'running', data = n.data, aggregate = n.aggregate, reserved = '',
        reserved_at = NULL, admitted_at = statement_timestamp() + n.turn * interval '1 microsecond',
        updated_at = clock_timestamp()
    FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::int[]) AS n(id, data, aggregate, turn)
    WHERE e.id = n.id
"""
_LEAVE: Final = """
    UPDATE queues_waitingclass c SET waiting = c.waiting - n.count
    FROM unnest(%s::bigint[], %s::int[]) AS n(id, count) WHERE c.id = n.id
"""
_UNRESERVE: Final = """
    UPDATE queues_entry SET reserved = '', reserved_at = NULL WHERE id IN (
        SELECT e.id FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
        WHERE q.type = %s AND e.reserved <> '' AND e.id <> %s FOR NO KEY UPDATE OF e SKIP LOCKED)
"""
_RESERVE: Final = """
    UPDATE queues_entry SET reserved = %s, reserved_at = clock_timestamp() WHERE id IN (
        SELECT id FROM queues_entry WHERE id = %s AND reserved <> %s FOR NO KEY UPDATE SKIP LOCKED)
"""

#: Types whose lock could not be had -> how long the next look waits for it, in ms. Of this process.
_patience: dict[str, int] = {}


def look_at_all() -> int:
    """Look at every type of which something waits; returns how many entries were admitted.

    A type whose lock somebody has comes after all others: it alone is waited for.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TYPES)
        kinds = [row[0] for row in cursor.fetchall()]
    found = one_by_one("queues of a type", kinds, lambda kind: _look(kind, 0))
    late = [kind for kind, count in found.items() if count is None]
    waited = one_by_one("queues of a type", late, look)
    return sum(count or 0 for count in found.values()) + sum(waited.values())


def look(kind: str) -> int:
    """Admit what can be admitted of a type, in rounds of one commit each; returns how many entries.

    In best effort, where more classes wait than a decision is made of, one window of the others is looked at,
    too, the next one at the next look: what fits behind many that do not has its turn all the same.
    """
    patience = _patience.get(kind, _PATIENCE_MS[0])
    found = _look(kind, patience)
    if found is None:
        # Somebody stands still with the type's lock; Postgres ends such a one (queues.locks).
        _patience[kind] = min(2 * patience, _PATIENCE_MS[1])
        log.warning("queues.look_held_up", type=kind, ms=patience)
        return 0
    return found


def _look(kind: str, patience_ms: int) -> int | None:
    """The same, waiting for so long (0: not at all). None: the lock could not be had, nobody was admitted."""
    count = window = 0
    for number in range(_ROUNDS):
        try:
            found = _round(kind, patience_ms, window)
        except (IntegrityError, booking.Overbooked) as error:
            # Only a change of capacity behind the lock's back can do this. Nothing was kept: again later.
            log.warning("queues.booking_refused", type=kind, error=str(error))
            break
        except OperationalError as error:
            if getattr(error.__cause__, "pgcode", None) not in locks.HELD_UP:
                raise
            log.info("queues.lock_refused", type=kind, error=str(error))
            found = None
        if found is None:
            return count if number else None
        seen, decision = found
        count += len(decision.admitted)
        if decision.more:
            continue
        if window:
            _windows[kind] = window + 1 if len(seen.classes) >= snapshot.CLASSES else 1
        if window or seen.strict or not seen.approximate:
            break
        window = _windows.get(kind, 1)
    _patience.pop(kind, None)
    return count


def _round(kind: str, patience_ms: int, window: int) -> tuple[Snapshot, Decision] | None:
    """What was seen of a window of the classes, and decided; None: the lock could not be had at once."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{patience_ms or _PATIENCE_MS[0]}ms"])
        if patience_ms:
            locks.alone(cursor, kind)
        elif not locks.alone_at_once(cursor, kind):
            return None
        seen = snapshot.read(cursor, kind, window=window)
        decision, rows = _decided(cursor, seen)
        _admit(cursor, decision.admitted, rows)
        _keep_reservation(cursor, kind, seen, decision)
        _set_aside(cursor, decision)
    if decision.admitted:
        log.info("queues.admitted", type=kind, entries=[each.entry for each in decision.admitted])
    return seen, decision


def _decided(cursor: CursorWrapper, seen: Snapshot) -> tuple[Decision, dict[int, tuple[Any, ...]]]:
    """The decision and the rows of those that it admits, locked.

    An entry whose row somebody holds who has not the type's lock (a session of psql, say) is waited for by
    nobody: it is decided as if it were not there, until a later look finds it free.
    """
    while True:
        decision = decide(seen)
        wanted = {each.entry for each in decision.admitted}
        if not wanted:
            return decision, {}
        cursor.execute(_ADMITTED, [sorted(wanted)])
        rows = {row[0]: row for row in cursor.fetchall()}
        if not (held := wanted - rows.keys()):
            return decision, rows
        log.warning("queues.entries_held", entries=sorted(held))
        seen = _but(seen, held)


def _but(seen: Snapshot, held: set[int]) -> Snapshot:
    left = []
    for each in seen.classes:
        heads = tuple(head for head in each.heads if head.id not in held)
        if heads:
            left.append(replace(each, heads=heads, count=each.count - len(each.heads) + len(heads)))
    return replace(seen, classes=tuple(left))


def _admit(cursor: CursorWrapper, admitted: tuple[Admission, ...], rows: dict[int, tuple[Any, ...]]) -> None:
    if not admitted:
        return
    changed: list[tuple[int, str, str, int]] = []
    owed: list[tuple[Any, ...]] = []
    for turn, each in enumerate(admitted):
        entry, data, request_id, kind, owner, callback, deliverable, tenant = rows[each.entry]
        given = {**json.loads(data), "host_aggregate": each.aggregate}
        changed.append((entry, bodies.data_text(given), each.aggregate, turn))
        if deliverable:
            told = bodies.callback_body(
                request_id=request_id, kind=kind, owner_id=owner, data=given, sequence=1
            )
            body = json.dumps(told, separators=(",", ":"))
            owner_of_it = (tenant, "queues", bodies.OWNER_KIND, str(entry), None, 1)
            message = ("running", outbox.message_id(), callback, outbox.receiver(callback), body, False)
            owed.append((*owner_of_it, *message))
    cursor.execute(_RUN, [[row[index] for row in changed] for index in range(4)])
    leaving = Counter(each.cls.id for each in admitted)
    cursor.execute(_LEAVE, [list(leaving), list(leaving.values())])
    booking.take(cursor, admitted)
    outbox.insert(cursor, owed)


def _keep_reservation(cursor: CursorWrapper, kind: str, seen: Snapshot, decision: Decision) -> None:
    kept = decision.reservation
    if seen.reservation is not None or kept is not None:
        cursor.execute(_UNRESERVE, [kind, kept.entry if kept else 0])
    if kept is not None:
        cursor.execute(_RESERVE, [kept.aggregate, kept.entry, kept.aggregate])


def _set_aside(cursor: CursorWrapper, decision: Decision) -> None:
    """What can go nowhere is not looked at again until the capacity of its type grows."""
    hopeless = [
        class_id
        for class_id, verdict in decision.verdicts.items()
        if verdict.level in (Level.NEVER_FITS, Level.MISCONFIGURED)
    ]
    if hopeless:
        cursor.execute("UPDATE queues_waitingclass SET aside = true WHERE id = ANY(%s)", [hopeless])
