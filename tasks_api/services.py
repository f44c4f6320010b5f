"""The verbs of the tasks family: submit, read, kill, reconcile, find.

One call of the engine each; what is said on the wire comes from ``tasks_api.wire``. Everything takes the
tenant and sees nothing of other tenants or families. Must not import views, HTTP or the worker's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import connection

from tasks_api import status, wire
from tasks_api.codes import NoSuchRecord, NoSuchTask
from tasks_api.models import FAMILY, Task
from tasks_api.wire import Facts, TaskRequest
from workers import services
from workers.scheduling import explain
from workers.vocabulary.states import State, is_final

#: One row per task, in the order of ``Facts``. Raw SQL: this is half of the family's traffic, and the spec
#: (environment, uris) stays in the database.
_READ = """
    SELECT r.id, r.name, r.spec #>> '{argv,2}', r.spec ->> 'image', r.state, r.reason, r.message, r.exit_code,
        r.attempt, r.retries_left, r.started_at, r.created_at, r.finished_at, r.not_before,
        r.cancel_requested_at, r.cancelled_by_operator, r.callback_url, r.shape_id,
        n.name, n.attributes ->> 'hostname', extract(epoch FROM now() - n.heartbeat_at)::float8,
        CASE WHEN r.callback_url <> ''
            THEN (SELECT max(c.delivered_at) FROM workers_callback c WHERE c.run_id = r.id) END
    FROM workers_run r LEFT JOIN workers_node n ON n.id = r.node_id
    WHERE r.id = ANY(%s) AND r.tenant_id = %s AND r.family = 'tasks'
"""


def submit(tenant_id: int, task: TaskRequest) -> int:
    """Accept a task; returns its taskId."""
    return services.submit(
        services.Submission(
            tenant_id=tenant_id,
            family=FAMILY,
            spec=task.spec,
            name=task.name,
            constraints=task.constraints,
            priority=task.priority,
            retries=task.retries,
            callback_url=task.callback_url,
        )
    )


def read(tenant_id: int, ids: list[int]) -> list[Facts]:
    """The facts of the tenant's tasks in the order asked, in one query; other ids are left out."""
    with connection.cursor() as cursor:
        cursor.execute(_READ, [ids, tenant_id])
        found = {row[0]: Facts._make(row) for row in cursor.fetchall()}
    return [found[task_id] for task_id in ids if task_id in found]


def waiting(tasks: Iterable[Facts]) -> Mapping[int, str]:
    """Shape id -> why it waits, for the waiting ones among ``tasks``: no query without any, else one."""
    shapes = {facts.shape_id for facts in tasks if facts.state == State.PENDING}
    return explain.why_waiting(sorted(shapes)) if shapes else {}


def describe(tenant_id: int, tenant: str, ids: list[int]) -> list[dict[str, object]]:
    """The task objects of the tenant named ``tenant``, in the order asked."""
    tasks = read(tenant_id, ids)
    why = waiting(tasks)
    return [wire.render_task(facts, tenant, why, silent_after_s()) for facts in tasks]


def kill(tenant_id: int, task_id: int) -> dict[str, object]:
    """Kill a task: a waiting one at once, a running one by its node. Answers how things stand now."""
    before = read(tenant_id, [task_id])
    if not before:
        raise NoSuchRecord(f"taskId {task_id}: no such record", field="taskId")
    if is_final(before[0].state):
        return wire.render_kill(before[0], accepted=False, silent_after_s=silent_after_s())
    accepted = services.cancel(tenant_id, task_id).accepted
    return wire.render_kill(read(tenant_id, [task_id])[0], accepted, silent_after_s())


def reconcile(tenant_id: int, ids: list[int]) -> dict[str, object]:
    """Compare tasks with what their nodes see now, waiting a few seconds at most for the nodes' answers."""
    known = read(tenant_id, ids)
    results = services.reconcile(tenant_id, [facts.id for facts in known])
    for facts in known:
        if is_final(facts.state) and facts.id in results:
            results[facts.id] = (results[facts.id][0], f"it has ended: {status.status(facts).name}")
    return wire.render_reconcile(ids, results)


def find(tenant_id: int, task_id: int) -> Task:
    """The task as a run of the engine. NoSuchTask when it is not the tenant's."""
    task = Task.objects.filter(tenant_id=tenant_id, pk=task_id).first()
    if task is None:
        raise NoSuchTask(f"taskId {task_id}: no such task", field="taskId")
    return task


def describe_one(tenant_id: int, tenant: str, task_id: int) -> dict[str, object]:
    """One task object. NoSuchTask when it is not the tenant's."""
    found = describe(tenant_id, tenant, [task_id])
    if not found:
        raise NoSuchTask(f"taskId {task_id}: no such task", field="taskId")
    return found[0]


def explain_task(tenant_id: int, task_id: int) -> dict[str, Any]:
    """Why the task is where it is, in the engine's form."""
    return dict(services.explain(tenant_id, find(tenant_id, task_id).pk))


def silent_after_s() -> float:
    """A node unheard for longer than a lease is called silent."""
    return float(settings.GANTRY_LEASE_S)
