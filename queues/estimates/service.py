"""Estimates for the rest of the family: of one entry, and how right they have been.

Soon after their submission a few new entries are told one, in a thread of its own: neither a POST nor an
admission waits for it. Must not import views.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from queues.admission import snapshot
from queues.admission.asked import Asked, ask
from queues.admission.decide import Head, Snapshot
from queues.estimates import calibration, ledger, stored
from queues.estimates.bound import Bound, bound, kept_for
from queues.estimates.estimate import Estimate, Unknown, estimate
from queues.estimates.forward import Running
from queues.estimates.runtimes import Ended, RunTimes
from queues.models import TypePolicy

log = structlog.get_logger(__name__)

#: New entries that one round tells, and the seconds that it may take.
_MOST: Final = 8
_ROUND_S: Final = 0.05
#: While a new entry's estimate is made the process's other threads go first: those that admit.
_PAUSE_S: Final = 0.0001
#: The advisory lock of a round: "gest" in ASCII.
_LOCK: Final = 0x67657374

#: Who does a round in this process.
_telling: threading.Thread | None = None


def of(cursor: CursorWrapper, kind: str, asked: Asked, waited: float) -> dict[str, Any]:
    """{p50_s, p90_s, method, samples} or {unknown}: how long an entry of a type will still wait.

    ``waited``: for how long it has, in s.
    """
    return Facts(cursor, kind, asked.snapshot).estimate(asked, waited).shown()


def bound_of(cursor: CursorWrapper, kind: str, asked: Asked) -> Bound | None:
    """By when the head of a best-effort queue starts at the latest; None: nothing is kept for the entry."""
    kept = kept_for(asked)
    if kept is None:
        return None
    runs = stored.running(cursor, kind, asked.snapshot, kept.aggregate)
    if len(runs) == stored.RUNNING:
        return Bound(kept.aggregate, None, f"{stored.RUNNING} or more run there")
    provider = TypePolicy.objects.filter(type=kind).values_list("provider", flat=True).first() or "pools"
    return bound(asked, runs, settings.GANTRY_QUEUE_LOOK_S, outside="" if provider == "pools" else provider)


def accuracy(kind: str) -> dict[str, Any]:
    """{coverage_p90, median_error, samples} over the last admitted entries of a type."""
    with connection.cursor() as cursor:
        return calibration.accuracy(ledger.outcomes(cursor, kind))


def published(kind: str) -> dict[str, Any]:
    """The same with the usual method: what GET /api/v1/queues/{type}/capacity tells of a type's estimates."""
    with connection.cursor() as cursor:
        known = ledger.outcomes(cursor, kind)
    methods = Counter(each.method for each in known).most_common(1)
    return {**calibration.accuracy(known), "method": methods[0][0] if methods else None}


def tell_aside() -> None:
    """Have a round done by a thread, if none is under way in this process."""
    global _telling
    if _telling is None or not _telling.is_alive():
        _telling = threading.Thread(target=_tell_quietly, name="queue-estimates", daemon=True)
        _telling.start()


def _tell_quietly() -> None:
    try:
        tell()
    except Exception:
        log.exception("queues.estimates_failed")
    finally:
        connection.close()


def tell() -> dict[str, int]:
    """One bounded round: learn from what has become known, and tell new entries. One process at a time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if cursor.fetchone() != (True,):
            return {"learned": 0, "told": 0}
        return {"learned": ledger.settle(cursor), "told": _tell_new(cursor)}


def _tell_new(cursor: CursorWrapper) -> int:
    stop = time.monotonic() + _ROUND_S
    known: dict[str, Facts] = {}
    count = 0
    for entry, kind, class_id, priority, tie, waited, now in ledger.new(cursor, _MOST):
        if time.monotonic() > stop:
            break
        if kind not in known:
            known[kind] = Facts(cursor, kind, snapshot.read(cursor, kind, also=class_id))
        facts = known[kind]
        if class_id not in {each.id for each in facts.seen.classes}:
            continue
        found = facts.estimate(ask(facts.seen, class_id, Head(entry, priority, tie)), waited, _PAUSE_S)
        if isinstance(found, Estimate):
            ledger.write(cursor, entry, kind, found, now)
            count += 1
    return count


class Facts:
    """What the estimates of a type are made from, read once."""

    def __init__(self, cursor: CursorWrapper, kind: str, seen: Snapshot) -> None:
        self.cursor, self.seen = cursor, seen
        self.past: list[Ended] = stored.past(cursor, kind)
        self.runtimes = RunTimes(self.past)
        self.running: list[Running] = stored.running(cursor, kind, seen)
        self.tilt = ledger.tilt(cursor, kind)

    def estimate(self, asked: Asked, waited: float, pause_s: float = 0.0) -> Estimate | Unknown:
        scene = stored.scene(self.cursor, asked, self.running, self.runtimes)
        return estimate(scene, self.past, self.tilt, waited, pause_s=pause_s)
