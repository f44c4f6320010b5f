"""A job's first element: the listing of its source, or the folder to be made.

Source: contract page 40, "Elements". A job of protocol DUMMY touches nothing: its only element ends at once.
"""

from __future__ import annotations

import json
from typing import Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.messages import doorbell
from workqueue.book import ending
from workqueue.models import Element, Job
from workqueue.models.jobs import Status, Type

#: A protocol that is no preference but a dry run.
DUMMY: Final = "DUMMY"


def begin(job: Job) -> None:
    """Make element 0 of a job that has just been stored, in the transaction that stored it."""
    kind = Type.MKDIR if job.type == Type.MKDIR else Type.LIST
    with transaction.atomic(), connection.cursor() as cursor:
        locked = Job.objects.select_for_update(no_key=True).get(pk=job.pk)
        Element.objects.create(
            job=locked,
            number=0,
            type=kind,
            src_filepath=job.src_filepath,
            escaped=job.escaped,
            max_tries=job.max_tries,
            status=Status.NEW,
        )
        ending.count(locked, {(None, Status.NEW): 1}, elements=1)
        if job.protocol == DUMMY:
            _pretend(cursor, locked)
        doorbell.ring_duties_after_commit()


def _pretend(cursor: CursorWrapper, job: Job) -> None:
    """End element 0 with a log that says what would be done."""
    told_at = ending.stamp()
    words = f"A dry run (protocol DUMMY): nothing was touched. Would be done: {_would(job)}"
    if job.extra_opts:
        words += f", with extra_opts {json.dumps(job.extra_opts, sort_keys=True)}"
    log = f"{ending.head('', 0, told_at)}\n{words}"
    count = 0 if job.type != Type.MKDIR else None
    done = ending.Ended(0, 1, Status.DONE, 0, told_at, log.replace("\0", ""), count)
    ending.enter(cursor, job, ending.Holder(None, ""), [done])
    Element.objects.filter(pk=(job.pk, 0)).update(status=Status.DONE, attempts=1)
    ending.count(job, {(Status.NEW, Status.DONE): 1})
    ending.finish(cursor, job)


def _would(job: Job) -> str:
    what = f"{Type(job.type).name} {job.src_filepath} at {job.source.name}"
    if job.type == Type.COPY and job.target is not None:
        return f"{what} to {job.dst_filepath} at {job.target.name}"
    return f"{what} to {job.dst_filepath}" if job.type == Type.RENAME else what
