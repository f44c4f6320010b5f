"""The verbs of saved jobs: create, replace, delete, start, cancel, retry, explain. One transaction each.

Everything takes the tenant and sees nothing of other tenants. Must not import views, HTTP or the worker's
side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from jobs.models import Executor, Job, Target
from jobs.saved import containers, hooks, reading, requests, retention, wire
from jobs.saved.containers import Planned
from jobs.saved.errors import NameTaken, NoSuchJob
from jobs.saved.requests import JobRequest, TargetRequest
from jobs.saved.wire import ENDED, ExecutorFacts, JobFacts, TargetFacts
from workers import policy, secrets, services
from workers.errors import Conflict, EngineError
from workers.models import Node
from workers.placement import NODE_ATTRIBUTE
from workers.specs import MIB, ExecSpec

FAMILY: Final = "jobs"
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
        row = _locked(tenant_id, asked)
        _apply(row, wanted)
        if wanted.secrets is not None:
            _set_secrets(row, wanted.secrets)
        _save(row, wanted.name)
        retention.wipe_retired(1, row.pk)
    return reading.job(tenant_id, row.uuid, asked)


def delete(tenant_id: int, asked: str) -> None:
    """The name is free again; what runs goes on, and the history stays."""
    with transaction.atomic():
        row = _locked(tenant_id, asked)
        row.retired_secret_ids = [*row.retired_secret_ids, *row.secret_ids]
        row.secret_ids, row.deleted_at = [], Now()
        row.save(update_fields=["retired_secret_ids", "secret_ids", "deleted_at"])
        retention.wipe_retired(1, row.pk)


def _locked(tenant_id: int, asked: str) -> Job:
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


# --- Starting ----------------------------------------------------------------------------------------


def plan(tenant_id: int, asked: str, targets: list[TargetRequest] | None) -> Callable[[], list[Planned]]:
    """Where a start goes: the targets as sent, else what the nodes say of the job's service.

    Nodes are asked now, outside of any transaction; what goes wrong is raised when the plan is called for, so
    that a repeated request with an Idempotency-Key gets its first answer whatever the nodes say by then.
    """
    if targets is not None:
        planned = [Planned(target.container, target.node) for target in targets]
        return lambda: planned
    return _deferred(
        lambda: containers.find(tenant_id, reading.job(tenant_id, requests.parse_job_id(asked), asked))
    )


def plan_retry(tenant_id: int, asked: str, asked_executor: str) -> Callable[[], list[Planned]]:
    """The targets of an executor that failed; nodes that could not be asked then are asked again."""

    def find() -> list[Planned]:
        job = reading.job(tenant_id, requests.parse_job_id(asked), asked)
        failed = [target for target in read(tenant_id, asked, asked_executor)[1] if wire.failed(target)]
        if not failed:
            raise Conflict(f"nothing of executor {asked_executor} has failed: there is nothing to retry")
        planned = [
            Planned(target.container, target.node, retry_of=target.run_id)
            for target in failed
            if target.container
        ]
        unasked = {target.node for target in failed if not target.container}
        return planned + (containers.find(tenant_id, job, unasked) if unasked else [])

    return _deferred(find)


def _deferred(find: Callable[[], list[Planned]]) -> Callable[[], list[Planned]]:
    try:
        planned = find()
    except EngineError as error:
        problem = error

        def fail() -> list[Planned]:
            raise problem

        return fail
    return lambda: planned


def start(
    tenant_id: int,
    allowed: Collection[str],
    asked: str,
    planned: Callable[[], list[Planned]],
    retry_of: str | None = None,
) -> JobFacts:
    """Start a job in each planned container: a new executor, the last one of the job that is returned.

    ``allowed``: keys of ``workers.policy`` that are on. ``retry_of``: the executor whose failures this
    repeats, with the job as it is now: an edit may be what mends it.
    """
    with transaction.atomic():
        job = _locked(tenant_id, asked)
        targets = planned()
        before = None
        if retry_of is not None:
            before = Executor.objects.filter(job=job, number=requests.parse_executor_id(retry_of)).first()
        executor = _executor(job, before)
        nodes = _nodes_of({target.node for target in targets})
        refusal = _refusal(job, allowed)
        spec = _spec(job, policy.exec_targets(tenant_id))
        rows = []
        for ordinal, target in enumerate(targets):
            row = Target(executor=executor, ordinal=ordinal, container=target.container, node=target.node)
            names = nodes.get(target.node, [])
            row.error = target.error or refusal or ("" if names else _unknown(target.node))
            if not row.error:
                row.run_id = services.submit(
                    services.Submission(
                        tenant_id=tenant_id,
                        family=FAMILY,
                        spec=ExecSpec(container=target.container, **spec),
                        name=job.name,
                        constraints={NODE_ATTRIBUTE: names},
                        owner_id=hooks.owner_id(job.uuid, executor.number),
                        retry_of=target.retry_of,
                    )
                )
            rows.append(row)
        Target.objects.bulk_create(rows)
    return reading.job(tenant_id, job.uuid, asked)


def _executor(job: Job, retry_of: Executor | None) -> Executor:
    """A new executor under the next free second. The job's lock keeps two starts from taking the same one."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT n.now, greatest(floor(n.now)::bigint,
                   (SELECT max(number) + 1 FROM jobs_executor WHERE job_id = %s))
               FROM (SELECT extract(epoch FROM clock_timestamp())::float8 AS now) n""",
            [job.pk],
        )
        now, number = cursor.fetchone()
    return Executor.objects.create(
        job=job,
        tenant_id=job.tenant_id,
        number=number,
        create_time=max(now, float(number)),
        app_name=job.app_name,
        name=job.name,
        cmd=job.cmd,
        privileged=job.privileged,
        user=job.user,
        secret_ids=job.secret_ids,
        secret_lengths=job.secret_lengths,
        retry_of=retry_of,
    )


def _spec(job: Job, selectors: list[str]) -> dict[str, Any]:
    """What the specs of all targets share."""
    limit = settings.GANTRY_EXEC_LOG_MB * MIB
    return {
        "argv": requests.words(job.cmd),
        "selectors": selectors,
        "user": job.user,
        "env": requests.env(job.env),
        "privileged": job.privileged,
        "secret_ids": job.secret_ids,
        "log_head": limit // 2,
        "log_tail": limit - limit // 2,
    }


def _nodes_of(node_ids: set[str]) -> dict[str, list[str]]:
    """NodeId -> names of the workers that stand for it: those of that Swarm node, else the one so named."""
    found: dict[str, list[str]] = {}
    nodes = Node.objects.exclude(mode=Node.Mode.REMOVED).order_by("name")
    for name, swarm_id in nodes.values_list("name", "swarm_node_id"):
        if swarm_id and swarm_id in node_ids:
            found.setdefault(swarm_id, []).append(name)
    for name in nodes.filter(name__in=node_ids - found.keys()).values_list("name", flat=True):
        found[name] = [name]
    return found


def _refusal(job: Job, allowed: Collection[str]) -> str:
    if job.privileged and "exec_privileged" not in allowed:
        return "Privileged is refused by this tenant's policy: ask an operator to allow exec_privileged"
    return ""


def _unknown(node_id: str) -> str:
    return f"there is no node {node_id}: NodeId is a node's Swarm id, or its name (see /api/v1/nodes)"


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
