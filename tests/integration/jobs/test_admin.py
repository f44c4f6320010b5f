"""Operators' pages of saved jobs: what runs where, why it waits, and no secret."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from jobs.models import Executor, Job
from tests.contracts.jobs.conftest import Api, Stage, _keys, member
from workers.tenants import identity, tenancy

__all__ = ["_keys"]


@pytest.fixture
def api(db: None) -> Api:
    identity.forget()
    return member("10002", "ann")


@pytest.fixture
def root(db: None) -> Client:
    browser = Client()
    browser.force_login(tenancy.create_user("root", superuser=True))
    return browser


def page(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def test_a_job_and_its_starts(api: Api, root: Client) -> None:
    stage = Stage()
    job = api.job(Name="<b>deploy</b>", Cmd="run 'a b'", Env=["PASS=canary-env"], SecretArgs=["canary-arg"])
    executor = api.start(job, ("web", "n1"), ("db", "nowhere"), ("done", "n2"))
    stage.run(job, executor, 2)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_node SET heartbeat_at = now() - interval '5 minutes'")
    paths = {
        "jobs": "/admin/jobs/job/",
        "job": f"/admin/jobs/job/{Job.objects.get().pk}/change/",
        "executors": f"/admin/jobs/executor/?q={Executor.objects.get().pk}",
        "executor": f"/admin/jobs/executor/{Executor.objects.get().pk}/change/",
    }
    shown = {name: page(root.get(path)) for name, path in paths.items()}
    for text in shown.values():
        assert "canary" not in text
        assert "<b>deploy" not in text
    assert "*" * 10 in shown["job"]
    assert "PASS=***" in shown["job"]
    assert executor in shown["job"]
    assert "run a b **********" in shown["executor"]
    assert "STARTING node n1 has been silent for" in shown["executor"]
    assert "CREATE_FAILED there is no node nowhere" in shown["executor"]
    assert "done on n2: FINISHED" in shown["executor"]
    run_id = stage.target(job, executor, 0).run_id
    assert f"/admin/workers/run/{run_id}/change/" in shown["executor"]
    assert "canary" not in page(root.get(f"/admin/workers/run/{run_id}/change/"))


def test_nothing_can_be_changed_and_lists_have_few_queries(api: Api, root: Client) -> None:
    for number in range(30):
        api.start(api.job(Name=str(number)), ("a", "nowhere"))
    for path in ("/admin/jobs/job/add/", f"/admin/jobs/job/{Job.objects.earliest('pk').pk}/delete/"):
        assert root.post(path, {"post": "yes"}).status_code == 403
    for path in ("/admin/jobs/job/", "/admin/jobs/executor/"):
        with CaptureQueriesContext(connection) as seen:
            page(root.get(path))
        assert len(seen) <= 8
