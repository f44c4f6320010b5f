"""Why a job is where it is, the strongest reason first: the explanation of contract page 00.

Reasons of its runs are the engine's own (``workers.services.explain``); what keeps elements from being handed
out is asked of the same rules that hand out. Must not import views.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection

from workers import services
from workers.scheduling.obstacles import Obstacle, as_json
from workers.vocabulary.states import State
from workqueue.book import batches, dispatching, ending, flow
from workqueue.models import Batch, Element, ElementAttempt, Job
from workqueue.models.jobs import Status, Type

#: Batches whose runs are explained.
NAMED: Final = 3
#: Characters of an attempt's last line that are told.
SAID: Final = 300
#: How far back a position is counted; beyond it there is none.
POSITION_LIMIT: Final = 1000

_WAITING: Final = """
    SELECT count(*) FILTER (WHERE not_before > now()),
        extract(epoch FROM min(not_before) FILTER (WHERE not_before > now()) - now())::float8,
        count(*), min(phase), min(number) FILTER (WHERE not_before > now() AND attempts > 0)
    FROM (SELECT not_before, phase, number, attempts FROM workqueue_element
          WHERE job_id = %s AND status IN (0, 3) AND batch_id IS NULL ORDER BY phase, number LIMIT 20000) e
"""
_HELD: Final = """
    SELECT count(*), min(e.src_filepath) FROM workqueue_element e JOIN workqueue_batch b ON b.id = e.batch_id
    WHERE b.job_id = %s AND b.closed_at IS NULL AND b.phase < %s AND e.status IN (3, 4)
"""
_AHEAD: Final = """
    SELECT count(*) FROM (SELECT 1 FROM workqueue_job WHERE finished_at IS NULL AND tenant_id = %s
        AND (priority, id) < (%s, %s) LIMIT %s) ahead
"""


def explain(job: Job) -> dict[str, Any]:
    """{state, since, reasons, position, estimate} of a job; its state is its documented status."""
    told: list[dict[str, Any]] = []
    position = None
    if job.finished_at is not None:
        words = f"{job.num_done} of its {job.elements} elements are done, {job.num_failed} failed"
        remedy = ""
        if job.num_failed:
            failed = Element.objects.filter(job=job, status=Status.FAILED).order_by("number")
            words += _said(job, failed.values_list("number", flat=True).first())
            remedy = "POST .../retry tries what failed again"
        told.append(_reason("ended", words, remedy))
    else:
        told = _of_open(job)
        if not job.num_running:
            with connection.cursor() as cursor:
                cursor.execute(_AHEAD, [job.tenant_id, job.priority, job.pk, POSITION_LIMIT])
                ahead = int(cursor.fetchone()[0])
            position = ahead if ahead < POSITION_LIMIT else None
    return {
        "state": ending.status(job).name,
        "since": (job.finished_at or job.changed_at).isoformat().replace("+00:00", "Z"),
        "reasons": told,
        "position": position,
        "estimate": None,
    }


def _of_open(job: Job) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    if job.cancel_requested_at is not None:
        told.append(_reason("cancelling", "it is being cancelled: what runs is stopped", "wait"))
    sites = [job.source] + ([job.target] if job.target is not None and job.type == Type.COPY else [])
    told += [
        _reason("banned", why, "wait, or ask an operator to lift the ban")
        for site in sites
        if (why := batches.banned(site))
    ]
    if job.pull:
        words = "only pull workers take it: they come by themselves and ask for work"
        told.append(_reason("pull", words, "start such a worker, or wait for one"))
    handed_out = Batch.objects.filter(job=job, closed_at=None).order_by("pk")
    told += _of_batches(job, list(handed_out[:NAMED]), handed_out.count())
    told += _of_waiting(job)
    if job.waiting_for and not any(job.waiting_for == item["message"] for item in told):
        told.insert(0, _reason("waits", job.waiting_for, "wait"))
    return told or [_reason("turn", "it is about to be handed out", "wait")]


def _of_batches(job: Job, named: list[Batch], count: int) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for batch in named:
        if batch.lease_until is not None:
            told.append(_reason("pulled", f"a batch is with the pull worker {batch.holder}", "wait"))
        elif batch.run is not None and batch.run.state in (State.PENDING, State.RUNNING):
            explained: Any = services.explain(job.tenant_id, batch.run.pk)
            for item in explained["reasons"]:
                words = f"run {batch.run.pk}: {item['message']}"
                told.append({**item, "message": words})
    if count > len(named):
        told.append(_reason("batches", f"{count} of its batches are handed out", ""))
    return told


def _of_waiting(job: Job) -> list[dict[str, Any]]:
    """What keeps elements that nobody has."""
    told = []
    with connection.cursor() as cursor:
        if job.elements != ending.counted(job):
            words = f"its listing has found {job.elements - 1} elements so far: they begin when it has ended"
            return [_reason("listing", words, "wait")]
        cursor.execute(_WAITING, [job.pk])
        backing_off, due_s, waiting, phase, tried = cursor.fetchone()
        if not waiting:
            return []
        cursor.execute(_HELD, [job.pk, phase])
        before, path = cursor.fetchone()
        if before:
            words = f"{waiting} elements wait for {before} files such as {path} to be removed first"
            told.append(_reason("order", words, "wait"))
        elif backing_off:
            words = f"{backing_off} elements are tried again, the next one in {max(0.0, due_s):.0f} s"
            words += _said(job, tried)
            told.append(_reason("backoff", words, "wait, or cancel it"))
        if job.pull:
            return told
        room = flow.room(cursor, job.source, job.target if job.type == Type.COPY and phase else None)
        if not room.free:
            told.append(_reason("streams", room.binds, "wait, or ask an operator for a higher limit"))
        elif Batch.objects.filter(job=job, closed_at=None).count() >= dispatching.OPEN:
            words = (
                f"{waiting} elements wait: {dispatching.OPEN} batches of it are handed out, the most of a job"
            )
            told.append(_reason("batches", words, "wait"))
    return told


def _said(job: Job, number: int | None) -> str:
    """What the last attempt of an element said at its end, to go on a sentence; "" where it said nothing."""
    if number is None:
        return ""
    attempts = ElementAttempt.objects.filter(job=job, number=number).order_by("-attempt")
    lines = (attempts.values_list("log", flat=True).first() or "").strip().splitlines()
    return f"; element {number}: {lines[-1][:SAID]}" if lines else ""


def _reason(code: str, words: str, remedy: str) -> dict[str, Any]:
    return as_json(Obstacle(code, words, remedy, True))
