"""How attempts of elements end, and jobs: the only writer of counters, attempts' rows and finished_at.

Everything here is called with the job's row locked (``lock``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.conf import settings
from django.db.backends.utils import CursorWrapper
from django.db.models.functions import Now

from workers.callbacks import outbox
from workers.messages import doorbell
from workqueue import hooks
from workqueue.models import Job
from workqueue.models.jobs import Status, Type

#: Counter of a job by the status that it counts.
COUNTERS: Final = {
    Status.NEW: "num_new",
    Status.SUBMITTED: "num_submitted",
    Status.RUNNING: "num_running",
    Status.DONE: "num_done",
    Status.FAILED: "num_failed",
}
#: Return codes of attempts that nobody could report (errno-like).
LOST, CANCELLED, TIMED_OUT = 103, 125, 110


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over. ``log`` begins with ``head``."""

    number: int
    attempt: int
    status: int
    code: int
    told_at: str
    log: str
    listing_count: int | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who had it: the run, and the node's hostname."""

    run_id: int | None
    host: str


_ATTEMPTS: Final = """
    INSERT INTO workqueue_elementattempt (job_id, number, attempt, status, returncode, told_at, log,
        listing_count, host, run_id)
    SELECT %(job)s, u.*, %(host)s, %(run)s FROM unnest(%(number)s::int[], %(attempt)s::smallint[],
        %(status)s::smallint[], %(code)s::int[], %(told_at)s::text[], %(log)s::text[],
        %(listing_count)s::bigint[]) u
"""
#: Elements of a batch that had begun: this attempt is over.
_LOSE: Final = """
    WITH over AS (UPDATE workqueue_element SET attempts = attempts + 1, batch_id = NULL, changed_at = now(),
            part_attempt = CASE WHEN type = 1 AND NOT %(pulled)s THEN coalesce(part_attempt, attempts + 1)
                ELSE part_attempt END,
            status = CASE WHEN %(final)s OR attempts + 1 >= max_tries THEN 2 ELSE 3 END,
            not_before = CASE WHEN %(final)s OR attempts + 1 >= max_tries THEN NULL
                ELSE now() + least(%(cap)s, %(base)s * power(2, least(attempts, 40)))
                    * (0.7 + 0.3 * random()) * %(backs_off)s * interval '1 second' END
        WHERE job_id = %(job)s AND batch_id = %(batch)s AND status = 4
        RETURNING number, attempts, status),
    told AS (INSERT INTO workqueue_elementattempt (job_id, number, attempt, status, returncode, host, told_at,
            log, run_id)
        SELECT %(job)s, number, attempts, 2, %(code)s, %(host)s, %(told_at)s, %(log)s, %(run)s FROM over)
    SELECT count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3) FROM over
"""
#: And those that had not, as far as anybody heard: where they may have, a part of this attempt may lie there,
#: or the work may be done.
_GIVE_BACK: Final = """
    UPDATE workqueue_element e SET batch_id = NULL, changed_at = now(),
        not_before = now() + %(wait)s * interval '1 second',
        part_attempt = CASE WHEN %(begun)s AND e.type <> 0 THEN coalesce(e.part_attempt, e.attempts + 1)
            ELSE e.part_attempt END,
        src_turn = e.src_turn + b.src_blamed::int, dst_turn = e.dst_turn + b.dst_blamed::int
    FROM workqueue_batch b
    WHERE b.id = %(batch)s AND e.job_id = %(job)s AND e.batch_id = b.id AND e.status = 3
"""
#: Elements that nobody has, of a cancelled job.
_FAIL: Final = """
    WITH over AS (UPDATE workqueue_element SET attempts = attempts + 1, status = 2, not_before = NULL,
            changed_at = now()
        WHERE job_id = %(job)s AND number = ANY(ARRAY(SELECT number FROM workqueue_element
            WHERE job_id = %(job)s AND status IN (0, 3) AND batch_id IS NULL
            ORDER BY phase, number LIMIT %(limit)s))
        RETURNING number, attempts,
            (SELECT old.status FROM workqueue_element old
             WHERE old.job_id = %(job)s AND old.number = workqueue_element.number) AS before),
    told AS (INSERT INTO workqueue_elementattempt (job_id, number, attempt, status, returncode, host, told_at,
            log) SELECT %(job)s, number, attempts, 2, %(code)s, %(host)s, %(told_at)s, %(log)s FROM over)
    SELECT count(*) FILTER (WHERE before = 0), count(*) FILTER (WHERE before = 3) FROM over
"""
_DROP: Final = """
    DELETE FROM workqueue_element WHERE job_id = %(job)s AND number = ANY(ARRAY(
        SELECT number FROM workqueue_element WHERE job_id = %(job)s AND number > 0 ORDER BY number DESC
        LIMIT %(limit)s))
"""
#: What attempts of a LIST found that is not DONE.
_FORGET: Final = """
    DELETE FROM workqueue_listingpart p USING workqueue_element e
    WHERE p.job_id = %s AND e.job_id = p.job_id AND e.number = p.number AND e.status <> 1
"""
_CALLBACKS: Final = """
    SELECT coalesce(max(sequence), 0) + 1, coalesce(bool_or(state = 'due' AND NOT yields), false)
    FROM (SELECT sequence, state, yields FROM workers_callback
          WHERE owner_kind = %s AND owner_id = %s ORDER BY id FOR NO KEY UPDATE) c
"""


def lock(job_id: int) -> Job | None:
    """The job, locked until the end of the transaction; None when it is gone."""
    return Job.objects.select_for_update(no_key=True).filter(pk=job_id).first()


def stamp(at: object = None) -> str:
    """Seconds since 1970 (now, where it is none) as the contract writes times."""
    if isinstance(at, int | float) and 0 <= at < 2**36:
        moment = datetime.fromtimestamp(at, UTC)
    else:
        moment = datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")


def head(host: str, code: int, told_at: str, ignored: Sequence[str] = ()) -> str:
    """The first line of an attempt's log (contract page 40). ``ignored``: unknown extra_opts."""
    names = (" ".join(name.split()) for name in ignored)
    also = f", ignored extra_opts: {', '.join(names)}" if ignored else ""
    return f"Job run on host: {host}, returncode: {code}, timestamp: {told_at}{also}"


def enter(cursor: CursorWrapper, job: Job, holder: Holder, ended: Sequence[Ended]) -> None:
    """Write ended attempts: one statement."""
    if ended:
        columns = {name: [getattr(item, name) for item in ended] for name in Ended.__slots__}
        cursor.execute(_ATTEMPTS, {**columns, "job": job.pk, "host": holder.host, "run": holder.run_id})


def count(job: Job, moved: Mapping[tuple[int | None, int], int], **more: int) -> None:
    """Move elements between counters, {(status before or None, status now): how many}, and add to others of
    ``elements``, ``bytes_total``, ``bytes_done``. One UPDATE."""
    for (before, now), number in moved.items():
        if before is not None:
            name = COUNTERS[Status(before)]
            setattr(job, name, getattr(job, name) - number)
        name = COUNTERS[Status(now)]
        setattr(job, name, getattr(job, name) + number)
    for name, number in more.items():
        setattr(job, name, getattr(job, name) + number)
    changed = {name: getattr(job, name) for name in (*COUNTERS.values(), *more)}
    Job.objects.filter(pk=job.pk).update(**changed, changed_at=Now())


def counted(job: Job) -> int:
    """Elements that the counters know; those beyond belong to a listing that has not ended well."""
    return sum(getattr(job, name) for name in COUNTERS.values())


def status(job: Job) -> Status:
    """Follows from the counters: RUNNING while any element runs, SUBMITTED while work remains."""
    if job.num_running:
        return Status.RUNNING
    if job.num_new or job.num_submitted or not counted(job):
        return Status.SUBMITTED
    return Status.FAILED if job.num_failed else Status.DONE


def finish(cursor: CursorWrapper, job: Job) -> bool:
    """End the job if nothing of it is left to do; the callback that it owes is of the same commit."""
    if job.finished_at is not None or job.num_new + job.num_submitted + job.num_running:
        return False
    if job.elements != counted(job):
        return False
    Job.objects.filter(pk=job.pk).update(finished_at=Now(), waiting_for="")
    job.finished_at = datetime.now(UTC)  # as far as this transaction is concerned
    if job.callback_url:
        cursor.execute(_CALLBACKS, [hooks.OWNER_KIND, str(job.pk)])
        sequence, waits = cursor.fetchone()
        counts = {"num_done": job.num_done, "num_failed": job.num_failed}
        body = hooks.job_body(job.pk, Type(job.type).name, counts, sequence=sequence)
        owner = (job.tenant_id, hooks.FAMILY, hooks.OWNER_KIND, str(job.pk), None, sequence)
        url = job.callback_url
        text = json.dumps(body, separators=(",", ":"))
        message = (outbox.ENDED, outbox.message_id(), url, outbox.receiver(url), text, waits)
        outbox.insert(cursor, [(*owner, *message)])
    doorbell.ring_duties_after_commit()
    return True


def give_up(
    cursor: CursorWrapper,
    job: Job,
    batch_id: int,
    holder: Holder,
    why: tuple[int, str],
    *,
    wait_s: float,
    begun: bool,
) -> int:
    """Take a batch's elements back from whoever had it; returns how many of them come again.

    Those that had begun have one attempt more, which failed: ``why`` is its code and words. The others stay
    as they were. ``begun``: the run had started, so that some may have done more than anybody heard of.

    ``wait_s`` 0: nothing waits, nobody is to blame. Else what had begun waits as after any failed attempt;
    the others wait like a first one where an attempt was counted, so that max_tries ends it, and ``wait_s``
    where none was, so that nothing but time bounds it.
    """
    code, words = why
    told_at = stamp()
    given: dict[str, Any] = {
        "job": job.pk,
        "batch": batch_id,
        "final": job.cancel_requested_at is not None,
        "wait": wait_s,
        "base": settings.GANTRY_TRANSFER_RETRY_BASE_S,
        "cap": settings.GANTRY_TRANSFER_RETRY_CAP_S,
        "backs_off": int(wait_s > 0),
        "begun": begun,
        "pulled": holder.run_id is None,
        "code": code,
        "host": holder.host,
        "run": holder.run_id,
        "told_at": told_at,
        "log": f"{head(holder.host, code, told_at)}\n{words}",
    }
    cursor.execute(_LOSE, given)
    failed, again = cursor.fetchone()
    if failed or again:
        given["wait"] = min(wait_s, given["base"])
    cursor.execute(_GIVE_BACK, given)
    back = cursor.rowcount
    if failed or again:
        count(job, {(4, 2): failed, (4, 3): again})
        cursor.execute(_FORGET, [job.pk])
    return int(back + again)


def fail_waiting(cursor: CursorWrapper, job: Job, limit: int) -> int:
    """Fail up to ``limit`` elements of a cancelled job that nobody has; returns how many there were."""
    by = "an operator" if job.cancelled_by_operator else "its user"
    told_at = stamp()
    log = f"{head('', CANCELLED, told_at)}\nCancelled by {by}"
    cursor.execute(
        _FAIL,
        {"job": job.pk, "limit": limit, "code": CANCELLED, "host": "", "told_at": told_at, "log": log},
    )
    new, submitted = cursor.fetchone()
    if new or submitted:
        count(job, {(0, 2): new, (3, 2): submitted})
    return int(new + submitted)


def drop_found(cursor: CursorWrapper, job: Job, limit: int) -> int:
    """Delete up to ``limit`` elements of a listing that came to nothing; returns how many there were."""
    beyond = job.elements - counted(job)
    if beyond <= 0:
        return 0
    cursor.execute(_DROP, {"job": job.pk, "limit": min(limit, beyond)})
    dropped = int(cursor.rowcount)
    count(job, {}, elements=-dropped, bytes_total=-job.bytes_total)
    return dropped


def forget_listings(cursor: CursorWrapper, job: Job) -> None:
    """Delete what attempts of a LIST found that did not end well."""
    cursor.execute(_FORGET, [job.pk])
