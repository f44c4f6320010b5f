"""The begin of a job (a placeholder of this branch)."""

from __future__ import annotations

from workqueue.models import Element, Job
from workqueue.models.jobs import Type


def begin(job: Job) -> None:
    """Element 0."""
    kind = Type.MKDIR if job.type == Type.MKDIR else Type.LIST
    Element.objects.create(
        job=job,
        number=0,
        type=kind,
        src_filepath=job.src_filepath,
        escaped=job.escaped,
        max_tries=job.max_tries,
    )
    Job.objects.filter(pk=job.pk).update(num_new=1, elements=1)
