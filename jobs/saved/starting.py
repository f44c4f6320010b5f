"""Starting a job: where it goes, its executor, a run for each target. One transaction for each start.

Everything takes the tenant and sees nothing of other tenants. Must not import views, HTTP or the worker's
side.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction

from jobs.models import Executor, Job, Target
from jobs.saved import containers, hooks, reading, requests, wire
from jobs.saved.containers import Planned
from jobs.saved.requests import TargetRequest
from jobs.saved.services import locked, read
from jobs.saved.wire import JobFacts
from workers import services
from workers.models import Node
from workers.scheduling.obstacles import NODE_ATTRIBUTE
from workers.tenants import policy
from workers.vocabulary.errors import Conflict, EngineError
from workers.vocabulary.specs import MIB, ExecSpec

FAMILY: Final = "jobs"


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
    callback_url: str = "",
) -> JobFacts:
    """Start a job in each planned container: a new executor, the last one of the job that is returned.

    ``allowed``: keys of ``workers.tenants.policy`` that are on. ``retry_of``: the executor whose failures
    this repeats, with the job as it is now: an edit may be what mends it. ``callback_url`` is told of each
    target's start and end.
    """
    with transaction.atomic():
        job = locked(tenant_id, asked)
        targets = planned()
        before = None
        if retry_of is not None:
            before = Executor.objects.filter(job=job, number=requests.parse_executor_id(retry_of)).first()
        executor = _executor(job, before)
        nodes = _nodes_of({target.node for target in targets})
        refusal = _refusal(job, allowed)
        spec = _spec(job, policy.exec_targets(tenant_id))
        rows, wanted = [], []
        for ordinal, target in enumerate(targets):
            row = Target(executor=executor, ordinal=ordinal, container=target.container, node=target.node)
            names = nodes.get(target.node, [])
            row.error = target.error or refusal or ("" if names else _unknown(target.node))
            rows.append(row)
            if not row.error:
                submission = services.Submission(
                    tenant_id=tenant_id,
                    family=FAMILY,
                    spec=ExecSpec(container=target.container, **spec),
                    name=job.name,
                    constraints={NODE_ATTRIBUTE: names},
                    owner_id=hooks.owner_id(job.uuid, executor.number),
                    retry_of=target.retry_of,
                    callback_url=callback_url,
                )
                wanted.append((row, submission))
        ids = services.submit_all(submission for _, submission in wanted)
        for (row, _), run_id in zip(wanted, ids, strict=True):
            row.run_id = run_id
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
        return (
            "Privileged true is refused by this tenant's policy: save the job with Privileged false, or ask "
            'an operator for {"policy": {"exec_privileged": true}} (PATCH /api/v1/tenants/<tenant>)'
        )
    return ""


def _unknown(node_id: str) -> str:
    return f"there is no node {node_id}: NodeId is a node's Swarm id, or its name (see /api/v1/nodes)"
