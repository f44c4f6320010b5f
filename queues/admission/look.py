"""A look: decide on the waiting entries of a type, and admit. Booking, status and callback are one commit.

Several processes may look at once: the type's lock lets one decide at a time. What somebody else admitted is
not waiting any more. Must not import views.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

import structlog
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import bodies, locks
from queues.admission import booking, snapshot
from queues.admission.decide import Admission, Decision, Level, Snapshot, decide
from workers.callbacks import outbox

log = structlog.get_logger(__name__)

#: A look that cannot have the type's lock for so long is left to the next one, in ms.
_LOCK_MS: Final = 5000
#: SQLSTATE of a lock that could not be had in time, and of a deadlock that was ended: nothing was kept.
_HELD_UP: Final = {"55P03", "40P01"}
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
    WHERE e.id = ANY(%s) AND e.status = 'queued'
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
    UPDATE queues_entry e SET reserved = '', reserved_at = NULL FROM queues_queue q
    WHERE q.id = e.queue_id AND q.type = %s AND e.reserved <> '' AND e.id <> %s
"""
_RESERVE: Final = """
    UPDATE queues_entry SET reserved = %s, reserved_at = clock_timestamp() WHERE id = %s AND reserved <> %s
"""


def look_at_all() -> int:
    """Look at every type of which something waits; returns how many entries were admitted."""
    with connection.cursor() as cursor:
        cursor.execute(_TYPES)
        kinds = [row[0] for row in cursor.fetchall()]
    return sum(look(kind) for kind in kinds)


def look(kind: str) -> int:
    """Admit what can be admitted of a type, in rounds of one commit each; returns how many entries.

    In best effort, where more classes wait than a decision is made of, one window of the others is looked at,
    too, the next one at the next look: what fits behind many that do not has its turn all the same.
    """
    count = window = 0
    for _ in range(_ROUNDS):
        try:
            seen, decision = _round(kind, window)
        except (IntegrityError, booking.Overbooked) as error:
            # Only a change of capacity behind the lock's back can do this. Nothing was kept: again later.
            log.warning("queues.booking_refused", type=kind, error=str(error))
            break
        except OperationalError as error:
            if getattr(error.__cause__, "pgcode", None) not in _HELD_UP:
                raise
            # Somebody stands still with the type's lock: the other types are looked at all the same.
            log.warning("queues.look_held_up", type=kind, error=str(error))
            break
        count += len(decision.admitted)
        if decision.more:
            continue
        if window:
            _windows[kind] = window + 1 if len(seen.classes) >= snapshot.CLASSES else 1
        if window or seen.strict or not seen.approximate:
            break
        window = _windows.get(kind, 1)
    return count


def _round(kind: str, window: int) -> tuple[Snapshot, Decision]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_LOCK_MS}ms"])
        locks.alone(cursor, kind)
        seen = snapshot.read(cursor, kind, window=window)
        decision = decide(seen)
        _admit(cursor, decision.admitted)
        _keep_reservation(cursor, kind, seen, decision)
        _set_aside(cursor, decision)
    if decision.admitted:
        log.info("queues.admitted", type=kind, entries=[each.entry for each in decision.admitted])
    return seen, decision


def _admit(cursor: CursorWrapper, admitted: tuple[Admission, ...]) -> None:
    if not admitted:
        return
    cursor.execute(_ADMITTED, [[each.entry for each in admitted]])
    rows = {row[0]: row for row in cursor.fetchall()}
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
