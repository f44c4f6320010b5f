"""What is stored about jobs, as the facts that ``jobs.runtask.wire`` renders.

Plain SQL: a job is one query, its output a few more, a batch of a list one. Everything takes the tenant. Must
not import views or the worker's side.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from django.db import connection

from jobs.runtask import wire
from jobs.runtask.errors import NoSuchJob
from jobs.runtask.wire import JobFacts
from workers.logs import following, store
from workers.tenants import retention_policy

#: Between two looks of one who waits, at last, in seconds.
_SLOW_S: Final = 0.3
#: Longest ``?wait=``, in seconds.
WAIT_MOST_S: Final = 60.0

_JOB: Final = """
    SELECT j.id, r.id, r.state, r.reason, r.message, r.attempt, a.log_pruned IS NOT NULL
    FROM jobs_runtaskjob j JOIN workers_run r ON r.id = j.run_id
    LEFT JOIN workers_attempt a ON a.run_id = r.id AND a.number = r.attempt
    WHERE j.tenant_id = %(tenant)s AND j.id = %(job)s
"""


def job(tenant_id: int, job_id: int | None) -> JobFacts:
    """One job. NoSuchJob when the tenant has none of this id; None is the id of none."""
    with connection.cursor() as cursor:
        cursor.execute(_JOB, {"tenant": tenant_id, "job": job_id})
        row = cursor.fetchone()
    if row is None:
        raise NoSuchJob("there is no such job", field="job_id")
    return JobFacts._make(row)


def ended(tenant_id: int, job_id: int | None, wait_s: float) -> JobFacts:
    """The job once it has ended, or as it is after ``wait_s`` seconds. Unavailable when too many wait."""
    facts = job(tenant_id, job_id)
    if wait_s <= 0 or wire.done(facts):
        return facts
    until = time.monotonic() + min(wait_s, WAIT_MOST_S)
    pause = following.FAST_S
    following.budget.take()
    try:
        while not wire.done(facts) and (left := until - time.monotonic()) > 0:
            store.release()  # whoever waits holds no connection
            time.sleep(min(pause, left))
            pause = min(_SLOW_S, pause * 1.1)
            facts = job(tenant_id, job_id)
    finally:
        following.budget.give_back()
    return facts


def output(facts: JobFacts) -> tuple[bytes, bytes]:
    """What the job's last attempt has written by now, (stdout, stderr), as far as it is kept."""
    sizes = store.size(facts.run_id, facts.attempt)
    if facts.pruned:
        line = retention_policy.deleted_lines([facts.run_id]).get(facts.run_id, "").encode()
        out, err = (line if sizes[stream] else b"" for stream in store.NAMES)
        return out, err
    out, err = (
        b"".join(store.read(facts.run_id, facts.attempt, stream, 0, sizes[stream], gap=wire.left_out))
        for stream in (store.STREAMS["stdout"], store.STREAMS["stderr"])
    )
    return out, err


class JobRows:
    """The ids of the tenant's jobs, the newest last (``workers.api.lists.Rows``)."""

    def __init__(self, tenant_id: int) -> None:
        self._tenant = tenant_id

    def after(self, row_id: int, most: int) -> list[int]:
        return self._ids("id > %s ORDER BY id LIMIT %s", [row_id, most])

    def nth(self, number: int) -> int | None:
        found = self._ids("true ORDER BY id OFFSET %s LIMIT 2", [number - 1])
        return found[0] if len(found) == 2 else None

    def row_id(self, row: int) -> int:
        return row

    def render(self, rows: Sequence[int]) -> Iterable[object]:
        return map(str, rows)

    def _ids(self, tail: str, params: list[int]) -> list[int]:
        with connection.cursor() as cursor:
            query = f"SELECT id FROM jobs_runtaskjob WHERE tenant_id = %s AND {tail}"  # noqa: S608 our own
            cursor.execute(query, [self._tenant, *params])
            return [row[0] for row in cursor.fetchall()]
