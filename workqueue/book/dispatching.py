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

from workers import services
from workers.messages import doorbell
from workers.services import Submission
from workers.vocabulary.errors import LimitReached
from workers.vocabulary.specs import TransferSpec
from workqueue import hooks
from workqueue.book import ending, endpoints, flow, stopping
from workqueue.models import Batch, Job, Site
from workqueue.models.jobs import Status, Type

log = structlog.get_logger(__name__)

#: The advisory lock of handing out: "wq".
LOCK: Final = 0x7771 << 48
#: Most elements of a batch, and bytes (one element may have more).
ELEMENTS: Final = 2000
BYTES: Final = 8 << 30
#: A job's elements are spread over so many batches, but none smaller than that for it.
SPREAD: Final = 4
WORTH: Final = 200
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
#: The ready elements of the lowest phase that go to the same endpoints as the first of them.
_ELEMENTS: Final = """
    WITH next AS (SELECT phase FROM workqueue_element WHERE job_id = %(job)s AND status IN (0, 3)
            AND batch_id IS NULL ORDER BY phase, number LIMIT 1),
    ready AS (SELECT e.number, e.status, e.phase, e.type, coalesce(e.size, 0) AS size, e.src_turn, e.dst_turn,
            e.src_filepath
        FROM workqueue_element e, next
        WHERE e.job_id = %(job)s AND e.status IN (0, 3) AND e.batch_id IS NULL AND e.phase = next.phase
            AND (e.not_before IS NULL OR e.not_before <= now()) ORDER BY e.phase, e.number LIMIT %(most)s)
    SELECT number, status, phase, type, size, src_turn, dst_turn, src_filepath FROM ready ORDER BY number
"""
_TAKE: Final = """
    UPDATE workqueue_element SET batch_id = %s, status = 3, not_before = NULL,
        changed_at = CASE WHEN status = 0 THEN now() ELSE changed_at END
    WHERE job_id = %s AND number = ANY(%s)
"""
_WAITS: Final = "UPDATE workqueue_job SET waiting_for = %s WHERE id = %s AND waiting_for <> %s"
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


class _Waits(Exception):
    """Nothing of the job can be handed out now: why, as a sentence."""


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
        self._roots = endpoints.roots()
        self._sharers = Counter(item.pair for item in found)
        #: Pairs of sites without a free stream, with what binds there.
        self._full: dict[tuple[int, int | None], str] = {}

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
        return made

    def _try(self, item: Candidate) -> bool:
        try:
            return self._one(item)
        except (_Waits, LimitReached) as error:
            why = error.message if isinstance(error, LimitReached) else str(error)
        if why != item.waiting_for:
            with connection.cursor() as cursor:
                cursor.execute(_WAITS, [why, item.job_id, why])
        return False

    def _one(self, item: Candidate) -> bool:
        """A batch of the job; False when nothing is ready any more or somebody else has the job just now."""
        source, target = self._sites[item.source_id], self._sites.get(item.target_id or 0)
        for site in (source, target):
            if site is not None and (why := banned(site)):
                raise _Waits(why)
        if item.pair in self._full:
            raise _Waits(self._full[item.pair])
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            job = _locked(item.job_id)
            if job is None or job.elements != ending.counted(job):
                return False
            room = flow.room(cursor, source, target if item.phase else None)
            if not room.free:
                self._full[item.pair] = room.binds
                raise _Waits(room.binds)
            cursor.execute(_OPEN, [job.pk])
            batches, phase = cursor.fetchone()
            rows = _ready(cursor, job)
            if not rows or batches >= OPEN or bool(rows[0][2]) != bool(item.phase):
                return False
            if phase is not None and phase < rows[0][2]:
                return False
            share = max(1, min(STREAMS, room.most // max(2, self._sharers[item.pair])))
            streams = min(room.free, share, len(rows))
            if rows[0][3] in AT_ONE_SITE:
                streams = min(room.free, AT_ONE_SITE[Type(rows[0][3])])
            _make(cursor, job, source, target, rows, streams, self._roots)
        return True


def banned(site: Site) -> str:
    """Why nothing of a site's is handed out; "" when it may be."""
    if not site.ban:
        return ""
    until = f" until {site.ban_until:%Y-%m-%dT%H:%M:%SZ}" if site.ban_until else ""
    return f"site {site.name} is banned{until}{': ' if site.ban_message else ''}{site.ban_message}"


def _locked(job_id: int) -> Job | None:
    """The job, if something of it may be handed out and nobody else changes it just now."""
    jobs = Job.objects.select_for_update(no_key=True, skip_locked=True)
    return jobs.filter(pk=job_id, finished_at=None, cancel_requested_at=None, pull=False).first()


def _ready(cursor: CursorWrapper, job: Job) -> list[tuple[Any, ...]]:
    """The elements of the next batch: by number and by size, and all of them to the same endpoints."""
    most = min(ELEMENTS, max(WORTH, (job.num_new + job.num_submitted) // SPREAD))
    cursor.execute(_ELEMENTS, {"job": job.pk, "most": most})
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


def _make(
    cursor: CursorWrapper,
    job: Job,
    source: Site,
    target: Site | None,
    rows: Sequence[tuple[Any, ...]],
    streams: int,
    roots: set[str],
) -> None:
    """The batch, its run, and the elements handed out: of the caller's transaction."""
    _, _, phase, kind, _, src_turn, dst_turn, path = rows[0]
    src_endpoint = endpoints.choose(source, job.protocol, src_turn)
    dst_endpoint = None if target is None else endpoints.choose(target, job.protocol, dst_turn)
    constraints: dict[str, list[str]] = {}
    for site, index in ((source, src_endpoint), (target, dst_endpoint)):
        if site is not None and index is not None:
            needs = endpoints.needs(site.endpoints[index], roots)
            if isinstance(needs, str):
                raise _Waits(f"site {site.name}: {needs}")
            constraints |= needs
    batch = Batch.objects.create(
        job=job,
        source_id=source.pk,
        target_id=target.pk if target is not None and phase else None,
        src_endpoint=src_endpoint,
        dst_endpoint=dst_endpoint,
        streams=streams,
        phase=phase,
    )
    what = f"{Type(kind).name} of {path}" if len(rows) == 1 else f"{Type(kind).name} of {len(rows)} elements"
    _submit(job, batch, f"{what} of job {job.pk}", constraints)
    cursor.execute(_TAKE, [batch.pk, job.pk, [row[0] for row in rows]])
    new = sum(row[1] == Status.NEW for row in rows)
    ending.count(job, {(Status.NEW, Status.SUBMITTED): new})
    cursor.execute(_WAITS, ["", job.pk, ""])


def _submit(job: Job, batch: Batch, summary: str, constraints: dict[str, list[str]]) -> None:
    run_id = services.submit(
        Submission(
            tenant_id=job.tenant_id,
            family=hooks.FAMILY,
            spec=TransferSpec(batch=batch.pk, summary=summary),
            name=summary[:255].replace("\0", ""),
            constraints=constraints,
            priority=job.priority,
            owner_id=str(job.pk),
            private_to=job.user_id,
        )
    )
    Batch.objects.filter(pk=batch.pk).update(run_id=run_id)


def _sweep(job_id: int) -> bool:
    """A run that removes parts of elements that have failed for good; a job's end does not wait for it."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        job = Job.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=job_id).first()
        if job is None or job.finished_at is None or job.type != Type.COPY or job.target is None:
            return False
        cursor.execute(_OPEN, [job.pk])
        target, source = job.target, job.source
        if cursor.fetchone()[0] or banned(target) or banned(source):
            return False
        constraints: dict[str, list[str]] = {}
        index: dict[int, int] = {}
        for site in (source, target):
            index[site.pk] = endpoints.choose(site, job.protocol, 0)
            needs = endpoints.needs(site.endpoints[index[site.pk]], endpoints.roots())
            if isinstance(needs, str):
                return False
            constraints |= needs
        batch = Batch.objects.create(
            job=job,
            source_id=source.pk,
            target_id=target.pk,
            src_endpoint=index[source.pk],
            dst_endpoint=index[target.pk],
            streams=1,
            phase=1,
        )
        _submit(job, batch, f"removal of parts of job {job.pk}", constraints)
    return True
