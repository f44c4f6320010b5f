"""The verbs of runtask: submit, cancel. One transaction each; the Swift is asked outside of any.

Everything takes the tenant and sees nothing of other tenants. Must not import views, HTTP or the worker's
side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from django.conf import settings
from django.db import transaction
from structlog.contextvars import bind_contextvars

from jobs.models import RuntaskJob
from jobs.runtask import reading, swift
from jobs.runtask.asking import plan as planning
from jobs.runtask.asking.plan import Limits, Plan
from jobs.runtask.asking.requests import CommandRequest, DefinitionRequest
from jobs.runtask.catalogue.folder import catalogue
from workers import services
from workers.logs.store import release
from workers.tenants.bounds import Bounds
from workers.vocabulary.errors import EngineError
from workers.vocabulary.specs import MIB

FAMILY: Final = "runtask"
#: The name of a run that is no definition's.
COMMAND: Final = "cm"
#: Further attempts after a loss of its node, or a failure of ours.
_LOSSES: Final = 2


def prepare(
    asked: DefinitionRequest | CommandRequest, allowed: Collection[str], bounds: Bounds
) -> Callable[[], Plan]:
    """What a submission will do, checked against policy and Swift; takes up to 10 s.

    What is wrong is raised when the plan is called for, so that a repeated request with an Idempotency-Key
    gets its first answer whatever the Swift says by then. Must not be called in a transaction.
    """
    try:
        plan = _plan(asked, allowed, bounds)
        release()  # a Swift that takes its time must not hold a connection
        there = () if plan.wait_s else [place for place, _ in plan.inputs]
        swift.check(plan.store, container=plan.needed, inputs=there)
    except EngineError as error:
        problem = error

        def fail() -> Plan:
            raise problem

        return fail
    return lambda: plan


def _plan(asked: DefinitionRequest | CommandRequest, allowed: Collection[str], bounds: Bounds) -> Plan:
    if isinstance(asked, CommandRequest):
        return planning.of_command(asked, allowed)
    definition = catalogue().find(asked.job)
    return planning.of_definition(asked, definition, settings.GANTRY_RUNTASK_CONTAINER, allowed, bounds)


def submit(tenant_id: int, plan: Plan, callback_url: str = "") -> int:
    """Accept a job; returns its id. The job's row comes first: its id is the name of what it stores."""
    limits = Limits(
        cpu_m=round(settings.GANTRY_RUNTASK_CPUS * 1000),
        mem_mb=settings.GANTRY_RUNTASK_MEM_MB,
        timeout_s=settings.GANTRY_RUNTASK_TIMEOUT_S,
        log=settings.GANTRY_RUNTASK_LOG_MB * MIB,
    )
    with transaction.atomic():
        job = RuntaskJob.objects.create(tenant_id=tenant_id, definition=plan.definition)
        run_id = services.submit(
            services.Submission(
                tenant_id=tenant_id,
                family=FAMILY,
                spec=planning.spec(plan, str(job.pk), time.time(), limits),
                name=plan.definition or COMMAND,
                timeout_s=plan.timeout_s or limits.timeout_s,
                # It reads and writes objects and nothing else: lost with its node, it is done once more.
                retries=_LOSSES,
                losses_only=True,
                # The wait for an input is no wait for a node.
                expires_in_s=settings.GANTRY_EXPIRE_S + plan.wait_s,
                owner_id=str(job.pk),
                callback_url=callback_url,
            )
        )
        RuntaskJob.objects.filter(pk=job.pk).update(run_id=run_id)
    return int(job.pk)


def cancel(tenant_id: int, job_id: int | None) -> tuple[int, bool]:
    """End a job; (its id, whether it had not ended before)."""
    facts = reading.job(tenant_id, job_id)
    bind_contextvars(run=facts.run_id)  # for the log and the audit log: a body's job_id is in neither
    return facts.pk, not services.cancel(tenant_id, facts.run_id).already_final
