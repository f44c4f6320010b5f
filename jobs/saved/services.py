"""The verbs of saved jobs but start and retry: create, replace, delete, read, cancel, explain.

One transaction each. Everything takes the tenant and sees nothing of other tenants. Must not import views,
HTTP or the worker's side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from jobs.models import Job
from jobs.saved import reading, requests, retention, wire
from jobs.saved.errors import NameTaken, NoSuchJob
from jobs.saved.requests import JobRequest
from jobs.saved.wire import ENDED, ExecutorFacts, JobFacts, TargetFacts
from workers import secrets, services
from workers.vocabulary.errors import EngineError

#: What ``workers.secrets`` calls our secrets.
PURPOSE: Final = "jobs.SecretArgs"
#: Most explanations in one answer; each costs a few queries.
_EXPLAINED: Final = 100
#: The constraint that keeps names apart.
_NAME_TAKEN: Final = "job_name_once"


def create(tenant_id: int, wanted: JobRequest) -> JobFacts:
    """A new job. NameTaken when the application has one of this name."""
    requests.keep(wanted.secrets or (), ())
    with transaction.atomic():
        row = Job(tenant_id=tenant_id)
        _apply(row, wanted)
        _set_secrets(row, wanted.secrets or [])
        _save(row, wanted.name)
    return reading.job(tenant_id, row.uuid, str(row.uuid))


def replace(tenant_id: int, asked: str, wanted: JobRequest) -> JobFacts:
    """The job with everything replaced; of its secrets those that the request means to keep stay."""
    with transaction.atomic():
        row = locked(tenant_id, asked)
        _apply(row, wanted)
        if wanted.secrets is not None:
            _set_secrets(row, wanted.secrets)
        _save(row, wanted.name)
        retention.wipe_retired(1, row.pk)
    return reading.job(tenant_id, row.uuid, asked)


def delete(tenant_id: int, asked: str) -> None:
    """The name is free again; what runs goes on, and the history stays."""
    with transaction.atomic():
        row = locked(tenant_id, asked)
        row.retired_secret_ids = [*row.retired_secret_ids, *row.secret_ids]
        row.secret_ids, row.deleted_at = [], Now()
        row.save(update_fields=["retired_secret_ids", "secret_ids", "deleted_at"])
        retention.wipe_retired(1, row.pk)


def locked(tenant_id: int, asked: str) -> Job:
    """The job's row, locked: starts, edits and the deletion of one job follow each other."""
    jobs = Job.objects.select_for_update(no_key=True)
    row = jobs.filter(tenant_id=tenant_id, uuid=requests.parse_job_id(asked), deleted_at=None).first()
    if row is None:
        raise NoSuchJob(asked)
    return row


def _apply(row: Job, wanted: JobRequest) -> None:
    row.app_name, row.service_name, row.name = wanted.app_name, wanted.service_name, wanted.name
    row.cmd, row.privileged, row.user, row.env = wanted.cmd, wanted.privileged, wanted.user, wanted.env


def _set_secrets(row: Job, sent: Sequence[str]) -> None:
    old = list(row.secret_ids)
    kept = requests.keep(sent, row.secret_lengths)
    row.secret_ids = [
        secrets.store(row.tenant_id, PURPOSE, text) if place is None else old[place]
        for text, place in zip(sent, kept, strict=True)
    ]
    row.secret_lengths = [len(text) for text in sent]
    dropped = [secret_id for secret_id in old if secret_id not in row.secret_ids]
    row.retired_secret_ids = [*row.retired_secret_ids, *dropped]


def _save(row: Job, name: str) -> None:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        if _NAME_TAKEN in str(error):
            raise NameTaken(name, field="Name") from None
        raise


# --- Reading and stopping ----------------------------------------------------------------------------


def read(tenant_id: int, asked: str, asked_executor: str) -> tuple[ExecutorFacts, list[TargetFacts]]:
    """An executor, also of a deleted job, and its targets. NoSuchJob, NoSuchExecutor."""
    job_id = requests.parse_job_id(asked)
    try:
        number = requests.parse_executor_id(asked_executor)
    except EngineError:
        reading.job(tenant_id, job_id, asked, deleted=True)
        raise
    executor = reading.executor(tenant_id, job_id, number, (asked, asked_executor))
    return executor, reading.targets([executor.pk])[executor.pk]


def cancel(tenant_id: int, asked: str, asked_executor: str) -> JobFacts:
    """End what still runs or waits of an executor, also when its job has been deleted."""
    executor, targets = read(tenant_id, asked, asked_executor)
    services.cancel_all(
        tenant_id,
        [target.run_id for target in targets if target.run_id and wire.status(target) not in ENDED],
    )
    return reading.job(tenant_id, executor.job_uuid, asked, deleted=True)


def explain(tenant_id: int, asked: str, asked_executor: str) -> dict[str, Any]:
    """Why each target is where it is: the engine's explanation of those that have not ended, up to 100."""
    executor, targets = read(tenant_id, asked, asked_executor)
    unfinished = (target.run_id for target in targets if wire.status(target) not in ENDED)
    told = {
        run_id: services.explain(tenant_id, run_id) for run_id in islice(filter(None, unfinished), _EXPLAINED)
    }
    return {
        "JobId": str(executor.job_uuid),
        "CreateTime": executor.create_time,
        "Result": [
            {
                "NodeId": target.node,
                "ContainerId": target.container,
                "Status": str(wire.status(target)),
                "Explanation": told.get(target.run_id or 0),
            }
            for target in targets
        ],
    }
