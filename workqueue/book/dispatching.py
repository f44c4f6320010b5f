"""Elements that are ready become a batch and a run, all in one transaction, never twice.

Who hands out holds one advisory lock (free streams are then what they seem) and the job's row. Order: the
job's priority, then whoever has the fewest streams, then the oldest: a job of a million elements starves
nobody. Phases of a job follow each other: nothing of one is handed out before all of the earlier ones ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.messages import doorbell
from workers.vocabulary.errors import LimitReached
from workqueue.book import batches, ending, flow, stopping
from workqueue.models import Job, Site
from workqueue.models.jobs import Type

log = structlog.get_logger(__name__)

#: Parts that one run sweeps away.
SWEEPS: Final = 1000
#: The advisory lock of handing out: "wq".
LOCK: Final = 0x7771 << 48
#: Most elements of a batch, and bytes (one element may have more).
ELEMENTS: Final = 5000
BYTES: Final = 8 << 30
#: A job's elements are spread over so many batches, but none smaller than that for it.
SPREAD: Final = 2
WORTH: Final = 500
#: Open batches of one job, and made by one look.
OPEN: Final = 8
MADE: Final = 64
#: Most streams of one batch: one mover does no more at once.
STREAMS: Final = 32
#: Streams of a batch that goes over no link: LIST, and what is done at one site.
AT_ONE_SITE: Final = {Type.LIST: 4, Type.REMOVE: 8, Type.RENAME: 1, Type.MKDIR: 1}

#: Jobs of which something can be handed out, and those of which only parts are left to be swept away.
_READY: Final = """
    WITH open AS (SELECT job_id, count(*) AS batches, sum(streams) AS streams, min(phase) AS phase
        FROM workqueue_batch WHERE closed_at IS NULL GROUP BY job_id)
    SELECT j.id, j.priority, j.source_id, CASE WHEN j.type = 1 THEN j.target_id END, next.phase,
        j.waiting_for
    FROM workqueue_job j LEFT JOIN open o ON o.job_id = j.id
    CROSS JOIN LATERAL (SELECT phase FROM workqueue_element e WHERE e.job_id = j.id AND e.status IN (0, 3)
        AND e.batch_id IS NULL ORDER BY e.phase, e.number LIMIT 1) next
    WHERE j.finished_at IS NULL AND NOT j.pull AND j.cancel_requested_at IS NULL
        AND j.elements = j.num_new + j.num_submitted + j.num_running + j.num_done + j.num_failed
        AND coalesce(o.batches, 0) < %(open)s AND next.phase <= coalesce(o.phase, next.phase)
        AND EXISTS (SELECT 1 FROM workqueue_element e WHERE e.job_id = j.id AND e.status IN (0, 3)
            AND e.batch_id IS NULL AND e.phase = next.phase
            AND (e.not_before IS NULL OR e.not_before <= now()))
    ORDER BY j.priority, coalesce(o.streams, 0), j.id
"""
_HOLD: Final = """
    UPDATE workqueue_element SET batch_id = %s WHERE job_id = %s AND number = ANY(ARRAY(
        SELECT number FROM workqueue_element
        WHERE job_id = %s AND status = 2 AND part_attempt IS NOT NULL AND batch_id IS NULL
            AND (not_before IS NULL OR not_before <= now()) ORDER BY number LIMIT %s))
"""
_SWEEPS: Final = """
    SELECT DISTINCT e.job_id FROM workqueue_element e JOIN workqueue_job j ON j.id = e.job_id
    WHERE e.status = 2 AND e.part_attempt IS NOT NULL AND e.batch_id IS NULL
        AND (e.not_before IS NULL OR e.not_before <= now()) AND NOT j.pull AND j.finished_at IS NOT NULL
        AND j.type = 1
    LIMIT %s
"""
_OPEN: Final = """
    SELECT count(*), min(phase) FROM workqueue_batch WHERE job_id = %s AND closed_at IS NULL
"""
_PHASE: Final = """
    SELECT phase FROM workqueue_element WHERE job_id = %s AND status IN (0, 3) AND batch_id IS NULL
    ORDER BY phase, number LIMIT 1
"""
_ELEMENTS: Final = """
    SELECT number, status, phase, type, coalesce(size, 0), src_turn, dst_turn, src_filepath
    FROM workqueue_element WHERE job_id = %s AND phase = %s AND status IN (0, 3) AND batch_id IS NULL
        AND (not_before IS NULL OR not_before <= now()) ORDER BY number LIMIT %s
"""
#: Rows that somebody changes just now are told at the next look.
_WAITS: Final = """
    UPDATE workqueue_job j SET waiting_for = u.why
    FROM unnest(%(ids)s::bigint[], %(why)s::text[]) AS u(id, why)
    WHERE j.id = u.id AND j.id IN (SELECT id FROM workqueue_job WHERE id = ANY(%(ids)s)
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
"""
_LIFT: Final = """
    UPDATE workqueue_site SET ban = '', ban_message = '', ban_until = NULL
    WHERE ban <> '' AND ban_until <= now()
"""
_OF_BANNED: Final = """
    SELECT DISTINCT j.id FROM workqueue_job j JOIN workqueue_site s ON s.id IN (j.source_id, j.target_id)
    WHERE s.ban = 'cancel' AND j.finished_at IS NULL AND j.cancel_requested_at IS NULL ORDER BY j.id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job of which something is ready."""

    job_id: int
    priority: int
    source_id: int
    target_id: int | None
    phase: int
    waiting_for: str

    @property
    def pair(self) -> tuple[int, int | None]:
        """Between which sites its files go; a listing goes to none."""
        return self.source_id, self.target_id if self.phase else None


def look() -> dict[str, int]:
    """Hand out what can be handed out; one bounded round. Returns {what: how many}."""
    with connection.cursor() as cursor:
        cursor.execute(_LIFT)
        cursor.execute(_OF_BANNED, [MADE])
        banned = [job_id for (job_id,) in cursor.fetchall()]
        cursor.execute(_READY, {"open": OPEN})
        found = [Candidate(*row) for row in cursor.fetchall()]
        cursor.execute(_SWEEPS, [MADE])
        sweeps = [job_id for (job_id,) in cursor.fetchall()]
    for job in Job.objects.filter(pk__in=banned):
        stopping.cancel(job, operator=True)
    made = _Round(found).hand_out() if found else 0
    swept = sum(_sweep(job_id) for job_id in sweeps)
    if made >= MADE:
        doorbell.ring_duties()
    return {"batches": made, "sweeps": swept, "cancelled": len(banned)}


class _Round:
    """One look: the sites as they are now, and the candidates in turns."""

    def __init__(self, found: Sequence[Candidate]) -> None:
        self._found = found
        ids = {
            site_id for item in found for site_id in (item.source_id, item.target_id) if site_id is not None
        }
        self._sites: dict[int, Site] = Site.objects.in_bulk(ids)
        self._roots = batches.roots()
        self._sharers = Counter(item.pair for item in found)
        #: Pairs of sites without a free stream, with what binds there.
        self._full: dict[tuple[int, int | None], str] = {}
        #: Jobs that wait for something else than at the last look.
        self._waiting: dict[int, str] = {}

    def hand_out(self) -> int:
        """Round by round, one batch each, priority after priority; returns how many batches were made."""
        made = 0
        for priority in sorted({item.priority for item in self._found}):
            turn = [item for item in self._found if item.priority == priority]
            while turn and made < MADE:
                more = []
                for item in turn:
                    if made < MADE and self._try(item):
                        made += 1
                        more.append(item)
                turn = more
        if self._waiting:
            ids = sorted(self._waiting)
            with connection.cursor() as cursor:
                cursor.execute(_WAITS, {"ids": ids, "why": [self._waiting[job_id] for job_id in ids]})
        return made

    def _try(self, item: Candidate) -> bool:
        try:
            return self._one(item)
        except batches.Waits as error:
            why = str(error)
        except LimitReached as error:
            why = error.message
        except (LookupError, TypeError, ValueError) as error:  # of this job alone: the others go on
            log.exception("book.not_handed_out", job=item.job_id)
            why = f"it cannot be handed out: {error!r}"
        if why != item.waiting_for:
            self._waiting[item.job_id] = why
        return False

    def _one(self, item: Candidate) -> bool:
        """A batch of the job; False when nothing is ready any more or somebody else has the job just now."""
        source, target = self._sites[item.source_id], self._sites.get(item.target_id or 0)
        for site in (source, target):
            if site is not None and (why := batches.banned(site)):
                raise batches.Waits(why)
        if item.pair in self._full:
            raise batches.Waits(self._full[item.pair])
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            job = _locked(item.job_id)
            if job is None or job.elements != ending.counted(job):
                return False
            room = flow.room(cursor, source, target if item.phase else None)
            if not room.free:
                self._full[item.pair] = room.binds
                raise batches.Waits(room.binds)
            cursor.execute(_OPEN, [job.pk])
            handed_out, phase = cursor.fetchone()
            rows = _ready(cursor, job)
            if not rows or handed_out >= OPEN or bool(rows[0][2]) != bool(item.phase):
                return False
            if phase is not None and phase < rows[0][2]:
                return False
            rows = batches.uncontested(cursor, job, rows)
            share = max(1, min(STREAMS, room.most // max(2, self._sharers[item.pair])))
            streams = min(room.free, share, len(rows))
            if rows[0][3] in AT_ONE_SITE:
                streams = min(room.free, AT_ONE_SITE[Type(rows[0][3])])
            batches.make(cursor, job, rows, batches.Way(source, target, streams, self._roots))
        return True


def _locked(job_id: int) -> Job | None:
    """The job, if something of it may be handed out and nobody else changes it just now."""
    jobs = Job.objects.select_for_update(no_key=True, skip_locked=True)
    return jobs.filter(pk=job_id, finished_at=None, cancel_requested_at=None, pull=False).first()


def _ready(cursor: CursorWrapper, job: Job) -> list[tuple[Any, ...]]:
    """The elements of the next batch, of the lowest phase: by number and by size, to the same endpoints."""
    cursor.execute(_PHASE, [job.pk])
    lowest = cursor.fetchone()
    if lowest is None:
        return []
    most = min(ELEMENTS, max(WORTH, (job.num_new + job.num_submitted) // SPREAD))
    cursor.execute(_ELEMENTS, [job.pk, lowest[0], most])
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in cursor.fetchall():
        if rows and row[5:7] != rows[0][5:7]:
            continue
        size += row[4]
        if rows and size > BYTES:
            break
        rows.append(row)
    return rows


def _sweep(job_id: int) -> bool:
    """Have parts removed of elements that have failed for good; a job's end does not wait for it."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            job = Job.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=job_id).first()
            if job is None or job.finished_at is None or job.type != Type.COPY or job.target is None:
                return False
            cursor.execute(_OPEN, [job.pk])
            if cursor.fetchone()[0] or batches.banned(job.target) or batches.banned(job.source):
                return False
            batch = batches.make(cursor, job, [], batches.Way(job.source, job.target, 1, batches.roots()))
            # Held from now on: a run that cannot even read its orders is not followed by the next at once.
            cursor.execute(_HOLD, [batch, job.pk, job.pk, SWEEPS])
    except (batches.Waits, LimitReached):
        return False
    return True
