"""The end of a job, asked for."""

from __future__ import annotations

from workqueue.models import Job


def cancel(job: Job, *, operator: bool) -> bool:
    raise LookupError("the book is written by another helper")


def retry(job: Job) -> int:
    raise LookupError("the book is written by another helper")
