"""The begin of a job."""

from __future__ import annotations

from workqueue.models import Job


def begin(job: Job) -> None:
    raise LookupError("the book is written by another helper")
