"""What is stored about saved jobs, executors and targets, as the facts that ``jobs.saved.wire`` renders.

Plain SQL: a list of jobs is one query with its executors, the results of any number of executors another one,
the ends of their outputs a third. Everything takes the tenant. Must not import views or the worker's side.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID

from django.db import connection

from jobs.saved import wire
from jobs.saved.errors import NoSuchExecutor, NoSuchJob
from jobs.saved.wire import ExecutorFacts, JobFacts, Status, TargetFacts
from workers.logs import store
from workers.tenants import retention_policy

_JOBS: Final = """
    SELECT j.id, j.uuid, j.app_name, j.service_name, j.name, j.cmd, j.privileged, j."user", j.env::text,
        j.secret_lengths,
        ARRAY(SELECT e.number FROM jobs_executor e WHERE e.job_id = j.id ORDER BY e.number)
    FROM jobs_job j WHERE j.tenant_id = %(tenant)s
"""
_EXECUTORS: Final = """
    SELECT e.id, j.uuid, e.number, e.create_time, e.name, e.cmd, e.privileged, e."user", e.secret_lengths
    FROM jobs_executor e JOIN jobs_job j ON j.id = e.job_id WHERE e.tenant_id = %(tenant)s
"""
_TARGETS: Final = """
    SELECT t.executor_id, t.container, t.node, t.error, r.id, r.state, r.reason, r.message, r.exit_code,
        r.attempt, extract(epoch FROM a.started_at)::float8, extract(epoch FROM r.finished_at)::float8,
        a.log_pruned IS NOT NULL, a.facts::text
    FROM jobs_target t
    LEFT JOIN workers_run r ON r.id = t.run_id
    LEFT JOIN workers_attempt a ON a.run_id = r.id AND a.number = r.attempt
    WHERE t.executor_id = ANY(%(executors)s) ORDER BY t.executor_id, t.ordinal
"""
#: Stream that holds an exec's output: both of its streams in order.
STREAM: Final = store.STREAMS["stdout"]
#: Results whose output is read and rendered at once.
_OUTPUTS: Final = 64


def jobs(tenant_id: int, where: str, params: dict[str, Any], tail: str = "") -> list[JobFacts]:
    """Jobs of the tenant, deleted ones included unless ``where`` leaves them out."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_JOBS} AND {where} {tail}", {"tenant": tenant_id, **params})
        return [JobFacts._make((*row[:8], json.loads(row[8]), *row[9:])) for row in cursor.fetchall()]


def job(tenant_id: int, job_id: UUID, asked: str, *, deleted: bool = False) -> JobFacts:
    """One job; with ``deleted`` also one that was deleted. NoSuchJob says the id as it was asked."""
    where = "j.uuid = %(uuid)s" + ("" if deleted else " AND j.deleted_at IS NULL")
    found = jobs(tenant_id, where, {"uuid": job_id})
    if not found:
        raise NoSuchJob(asked)
    return found[0]


def executors(tenant_id: int, where: str, params: dict[str, Any], tail: str = "") -> list[ExecutorFacts]:
    """Executors of the tenant."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_EXECUTORS} AND {where} {tail}", {"tenant": tenant_id, **params})
        return [ExecutorFacts._make(row) for row in cursor.fetchall()]


def executor(tenant_id: int, job_id: UUID, number: int, asked: tuple[str, str]) -> ExecutorFacts:
    """One executor, also of a deleted job. ``asked``: both ids as the client wrote them."""
    found = executors(
        tenant_id, "j.uuid = %(uuid)s AND e.number = %(number)s", {"uuid": job_id, "number": number}
    )
    if found:
        return found[0]
    if not jobs(tenant_id, "j.uuid = %(uuid)s", {"uuid": job_id}):
        raise NoSuchJob(asked[0])
    raise NoSuchExecutor(asked[1])


def targets(executor_ids: Sequence[int]) -> dict[int, list[TargetFacts]]:
    """The targets of executors in their order, by one query; executor's row id -> targets."""
    found: dict[int, list[TargetFacts]] = {executor_id: [] for executor_id in executor_ids}
    with connection.cursor() as cursor:
        cursor.execute(_TARGETS, {"executors": list(executor_ids)})
        for row in cursor.fetchall():
            facts = json.loads(row[-1]) if row[-1] is not None else None
            found[row[0]].append(TargetFacts._make((*row[:-1], facts)))
    return found


def outputs(found: Iterable[TargetFacts]) -> Iterator[bytes]:
    """The end of each target's output, b"" where none is shown. Read in groups: only one is in memory."""
    left = iter(found)
    while group := list(islice(left, _OUTPUTS)):
        shown = [
            (target.run_id, target.attempt or 0, target.pruned)
            for target in group
            if target.run_id is not None and wire.status(target) is Status.FINISHED
        ]
        kept = [(run_id, attempt) for run_id, attempt, pruned in shown if not pruned]
        ends = store.tails(kept, STREAM, wire.OUTPUT_MOST) if kept else {}
        if lost := [run_id for run_id, _, pruned in shown if pruned]:
            ends |= {run_id: line.encode() for run_id, line in retention_policy.deleted_lines(lost).items()}
        for target in group:
            yield ends.get(target.run_id or 0, b"")


def results(executor: ExecutorFacts, found: Sequence[TargetFacts]) -> Iterator[dict[str, Any]]:
    """The results of an executor, one after the other."""
    for target, output in zip(found, outputs(found), strict=True):
        yield wire.render_result(executor, target, output)


def _nth(query: str, params: dict[str, Any], number: int) -> int | None:
    """The id of the ``number``-th row of a query by id, if more follow."""
    with connection.cursor() as cursor:
        cursor.execute(f"{query} ORDER BY 1 OFFSET %(skip)s LIMIT 2", {**params, "skip": number - 1})
        found = cursor.fetchall()
    return int(found[0][0]) if len(found) == 2 else None


class JobRows:
    """The tenant's jobs, of one application if it is named (``workers.api.lists.Rows``)."""

    def __init__(self, tenant_id: int, app_name: str) -> None:
        self._tenant = tenant_id
        self._where = "j.deleted_at IS NULL" + (" AND j.app_name = %(app)s" if app_name else "")
        self._params = {"app": app_name}

    def after(self, row_id: int, most: int) -> list[JobFacts]:
        return jobs(
            self._tenant,
            f"{self._where} AND j.id > %(after)s",
            {**self._params, "after": row_id, "most": most},
            "ORDER BY j.id LIMIT %(most)s",
        )

    def nth(self, number: int) -> int | None:
        return _nth(
            "SELECT j.id FROM jobs_job j WHERE j.tenant_id = %(tenant)s AND " + self._where,
            {"tenant": self._tenant, **self._params},
            number,
        )

    def row_id(self, row: JobFacts) -> int:
        return row.pk

    def render(self, rows: Sequence[JobFacts]) -> Iterator[dict[str, Any]]:
        return map(wire.render_job, rows)


class ExecutorRows:
    """The tenant's executors, oldest first; of one application or one job if named. None: of no job."""

    def __init__(self, tenant_id: int, app_name: str, job_id: UUID | str | None) -> None:
        self._tenant = tenant_id
        wheres = ["true"]
        if app_name:
            wheres.append("e.app_name = %(app)s")
        if job_id is None:
            wheres.append("false")
        elif job_id:
            wheres.append("e.job_id = (SELECT id FROM jobs_job WHERE uuid = %(job)s)")
        self._where = " AND ".join(wheres)
        self._params = {"app": app_name, "job": job_id}

    def after(self, row_id: int, most: int) -> list[ExecutorFacts]:
        return executors(
            self._tenant,
            f"{self._where} AND e.id > %(after)s",
            {**self._params, "after": row_id, "most": most},
            "ORDER BY e.id LIMIT %(most)s",
        )

    def nth(self, number: int) -> int | None:
        return _nth(
            "SELECT e.id FROM jobs_executor e WHERE e.tenant_id = %(tenant)s AND " + self._where,
            {"tenant": self._tenant, **self._params},
            number,
        )

    def row_id(self, row: ExecutorFacts) -> int:
        return row.pk

    def render(self, rows: Sequence[ExecutorFacts]) -> Iterator[dict[str, Any]]:
        found = targets([row.pk for row in rows])
        ends = outputs(target for row in rows for target in found[row.pk])
        for row in rows:
            mine = [wire.render_result(row, target, next(ends)) for target in found[row.pk]]
            yield {**wire.render_head(row, found[row.pk]), "Result": mine}
