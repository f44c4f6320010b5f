"""Reports of pull workers: entered once, under the claim that a token signs, and nothing after the lease."""

from __future__ import annotations

from typing import Any, Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.models import Tenant
from workers.vocabulary.errors import Conflict, InvalidInput
from workqueue.book import ending, entering
from workqueue.errors import NoSuchElement, NoSuchJob
from workqueue.models import Batch, Element, ElementAttempt, Job
from workqueue.models.jobs import Status, Type
from workqueue.pull.bodies import Report
from workqueue.pull.claiming import LEASE_COPY_S, LEASE_S
from workqueue.pull.tokens import Claim

#: Lines of a listing that are entered together.
_LINES: Final = 500

_PLACE: Final = """
    SELECT source_id, target_id, holder FROM workqueue_batch
    WHERE id = %s AND job_id = %s AND closed_at IS NULL AND lease_until IS NOT NULL
"""
_EXTEND: Final = """
    UPDATE workqueue_batch SET lease_until = greatest(lease_until, now() + %s * interval '1 second')
    WHERE id = %s AND closed_at IS NULL
"""


def tenant_of(claim: Claim) -> Tenant:
    """Whose the element is. Raises NoSuchJob."""
    job = Job.objects.select_related("tenant").only("tenant").filter(pk=claim.job).first()
    if job is None:
        raise NoSuchJob(claim.job)
    return job.tenant


def report(claim: Claim, told: Report) -> None:
    """An attempt has ended. The same report once more is no news.

    Raises NoSuchJob, NoSuchElement; InvalidInput for a LIST without its listing, or when no try is left;
    Conflict when the element is somebody else's by now.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        job, element = _locked(claim)
        place = _held(cursor, claim, element)
        if place is None:
            _late(claim, element, told)
            return
        ok = told.returncode == 0
        if ok and element.type == Type.LIST and not told.listing:
            raise InvalidInput("listing is missing: a LIST with returncode 0 has one", field="listing")
        at, holder = 0, ending.Holder(None, told.host)
        lines: list[tuple[int, bytes, dict[str, Any]]] = []
        if ok and element.type == Type.LIST:
            for raw, line in told.lines(job.type):
                lines.append((at, raw, line))
                at += len(raw)
                if len(lines) >= _LINES:
                    entering.enter(cursor, job, place, holder, lines)
                    lines = []
        end: dict[str, Any] = {
            "r": "end",
            "n": claim.number,
            "attempt": claim.attempt,
            "ok": ok,
            "code": told.returncode,
            "log": told.log,
            "told_at": told.timestamp,
            "again": True,
        }
        if ok and element.type == Type.LIST:
            end["names"] = told.names
        if ok and element.type == Type.COPY and element.size is not None:
            end["moved"] = element.size
        entering.enter(cursor, job, place, holder, [*lines, (at, b"", end)])


def monitor(claim: Claim, *, transferred: int, elapsed: float, instant: float) -> None:
    """How far an attempt is: bytes (-1 = the whole file), seconds, bytes/s. It keeps its lease for longer.

    Raises as ``report``.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        job, element = _locked(claim)
        place = _held(cursor, claim, element)
        if place is None:
            raise _not_yours(claim)
        moved = (element.size or 0) if transferred < 0 else transferred
        line = {"r": "move", "n": claim.number, "moved": moved, "instant": instant, "elapsed": elapsed}
        entering.enter(cursor, job, place, ending.Holder(None, ""), [(0, b"", line)])
        cursor.execute(_EXTEND, [LEASE_COPY_S if element.type == Type.COPY else LEASE_S, claim.batch])


def _locked(claim: Claim) -> tuple[Job, Element]:
    job = ending.lock(claim.job)
    if job is None:
        raise NoSuchJob(claim.job)
    element = Element.objects.filter(job_id=claim.job, number=claim.number).first()
    if element is None:
        raise NoSuchElement(claim.number, claim.job)
    return job, element


def _held(cursor: CursorWrapper, claim: Claim, element: Element) -> entering.Place | None:
    """The batch, while the element is still handed out by it for this attempt."""
    if element.batch_id != claim.batch or element.attempts + 1 != claim.attempt:
        return None
    if element.status not in (Status.SUBMITTED, Status.RUNNING):
        return None
    cursor.execute(_PLACE, [claim.batch, claim.job])
    row = cursor.fetchone()
    return None if row is None else entering.Place(claim.batch, row[0], row[1])


def _late(claim: Claim, element: Element, told: Report) -> None:
    """Was it reported just so before, under this very lease? Then all is well."""
    before = ElementAttempt.objects.filter(
        job_id=claim.job, number=claim.number, attempt=claim.attempt, run_id=None
    ).first()
    if before is not None and (before.returncode, before.host, before.told_at) == (
        told.returncode,
        told.host,
        told.timestamp,
    ):
        # Of whoever was given the element next nothing ended before this one's batch was closed.
        batch = Batch.objects.filter(pk=claim.batch).first()
        if batch is not None and (batch.closed_at is None or before.ended_at <= batch.closed_at):
            return
    if element.attempts >= element.max_tries and element.status == Status.FAILED:
        raise InvalidInput(
            f"element {claim.number} of job {claim.job} has no try left: it has failed for good"
        )
    raise _not_yours(claim)


def _not_yours(claim: Claim) -> Conflict:
    return Conflict(
        f"element {claim.number} of job {claim.job} is not yours any more: its lease ran out, or its job was "
        "cancelled"
    )
