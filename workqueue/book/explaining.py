"""Why a job is where it is."""

from __future__ import annotations

from typing import Any

from workqueue.models import Job


def explain(job: Job) -> dict[str, Any]:
    raise LookupError("the book is written by another helper")
