"""What of saved jobs is deleted when: executors, deleted jobs, secrets; and what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from jobs.models import Executor, Job, Target
from jobs.saved import retention
from tests.contracts.jobs.conftest import Api, Stage, _keys, member
from workers.models import Run, Secret
from workers.tenants import identity
from workers.upkeep import retention as engine

__all__ = ["_keys"]

NOTHING = {"executors": 0, "jobs": 0, "job_secrets": 0}


@pytest.fixture
def api(db: None, settings: Any) -> Api:
    settings.GANTRY_KEEP_RUNS_D = 90
    identity.forget()
    return member("10002", "ann")


@pytest.fixture
def stage(api: Api) -> Stage:
    return Stage()


def age(days: int, *, executors: bool = True, runs: bool = True, jobs: bool = True) -> None:
    with connection.cursor() as cursor:
        if executors:
            cursor.execute("UPDATE jobs_executor SET create_time = create_time - %s * 86400.0", [days])
        if runs:
            cursor.execute(
                "UPDATE workers_run SET finished_at = finished_at - %s * interval '1 day'"
                " WHERE finished_at IS NOT NULL",
                [days],
            )
        if jobs:
            cursor.execute("UPDATE jobs_job SET deleted_at = deleted_at - %s * interval '1 day'", [days])


def test_old_executors_go_with_their_runs_and_the_job_stays(api: Api, stage: Stage) -> None:
    job = api.job()
    old = api.start(job, ("a", "n1"), ("b", "nowhere"))
    stage.run(job, old)
    age(91)
    fresh = api.start(job, ("a", "n1"))
    counts = engine.prune_once(100)
    assert (counts["executors"], counts["runs"]) == (1, 0)
    connection.check_constraints()
    assert engine.prune_once(100)["runs"] == 1, "nothing needs them any more"
    assert list(Executor.objects.values_list("number", flat=True)) == [int(fresh)]
    assert (Target.objects.count(), Run.objects.count(), Secret.objects.count()) == (1, 1, 2)
    assert engine.prune_once(100)["executors"] == 0


def test_what_runs_or_ended_lately_keeps_its_executor(api: Api, stage: Stage) -> None:
    job = api.job()
    waits, ended = api.start(job, ("a", "n1")), api.start(job, ("a", "n1"))
    stage.run(job, ended)
    age(91, runs=False)
    assert retention.prune(100) == NOTHING
    assert Executor.objects.count() == 2
    assert waits != ended


def test_zero_keeps_for_ever(api: Api, stage: Stage, settings: Any) -> None:
    settings.GANTRY_KEEP_RUNS_D = 0
    job = api.job()
    stage.run(job, api.start(job, ("a", "n1")))
    api.send("DELETE", f"/api/jobs/{job['JobId']}")
    age(9999)
    assert retention.prune(100) == NOTHING


def test_a_round_is_bounded(api: Api, stage: Stage) -> None:
    job = api.job()
    for _ in range(5):
        api.start(job, ("a", "nowhere"))
    age(91)
    assert [retention.prune(2)["executors"] for _ in range(4)] == [2, 2, 1, 0]


def test_a_deleted_jobs_secrets_go_when_its_last_run_has_ended(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("a", "n1"), ("b", "n1"))
    api.send("DELETE", f"/api/jobs/{job['JobId']}")
    stage.run(job, executor)
    assert retention.prune(100) == NOTHING
    assert Secret.objects.count() == 2
    stage.run(job, executor, 1)
    assert retention.prune(100) == {**NOTHING, "job_secrets": 2}
    assert not Secret.objects.exists()
    age(91)
    assert retention.prune(100) == {**NOTHING, "executors": 1, "jobs": 1}
    assert not Job.objects.exists()


def test_only_what_is_not_used_is_wiped(api: Api, stage: Stage) -> None:
    job = api.job()
    first = api.start(job, ("a", "n1"))
    path = f"/api/jobs/{job['JobId']}"
    body = {"AppName": "2048", "Name": "n", "Cmd": "true"}
    api.put(path, {**body, "SecretArgs": ["*", "third"]})
    second = api.start(job, ("a", "n1"))
    api.put(path, {**body, "SecretArgs": ["fourth"]})
    assert Secret.objects.count() == 4
    stage.run(job, first)
    assert retention.prune(100)["job_secrets"] == 1, "the second; the first is used by the second start"
    stage.run(job, second)
    assert retention.prune(100)["job_secrets"] == 2
    assert list(Secret.objects.values_list("pk", flat=True)) == Job.objects.get().secret_ids
