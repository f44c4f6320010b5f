"""Operators' pages of runtask: what runs, what waits and why, what is offered; and no credential."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from config import checks
from jobs.models import RuntaskJob
from tests.contracts.runtask.conftest import WHO, Api, Stage, _keys, api, asked, ok
from tests.support.runtask import define
from workers.tenants import tenancy
from workers.vocabulary.states import Reason

__all__ = ["_keys", "api", "asked"]


@pytest.fixture
def root(db: None) -> Client:
    browser = Client()
    browser.force_login(tenancy.create_user("root", superuser=True))
    return browser


def page(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    answer.render() if hasattr(answer, "render") else None
    return str(answer.content.decode())


def test_what_waits_and_what_has_failed(api: Api, root: Client) -> None:
    stage = Stage()
    waiting = ok(api.form("/runtask/", {**WHO, "cm": "echo <b>hi</b>", "input_file": "c/my name"}))["job_id"]
    bad = api.run()
    stage.failed(bad, Reason.INPUT, "genomes/reads.fasta is not there")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_node SET heartbeat_at = now() - interval '5 minutes'")
    listed = page(root.get("/admin/jobs/runtaskjob/"))
    assert "genomes/reads.fasta is not there" in listed
    assert "FAILED input" in listed
    assert "node-a" in listed
    shown = page(root.get(f"/admin/jobs/runtaskjob/{waiting}/change/"))
    assert "has been silent for" in shown
    assert "c/my name" in shown
    assert "admin of admin at http://swift.example:5000/v2.0/" in shown
    assert "<b>hi" not in shown
    run_id = Stage.run_of(waiting).pk
    assert f"/admin/workers/run/{run_id}/change/" in shown
    for text in (listed, shown, page(root.get(f"/admin/workers/run/{run_id}/change/"))):
        assert "canary-key" not in text
    assert "It has ended" in page(root.get(f"/admin/jobs/runtaskjob/{bad}/change/"))
    found = page(root.get("/admin/jobs/runtaskjob/?run__state=FAILED"))
    assert ("FAILED" in found, "PENDING</td>" in found) == (True, False)
    assert page(root.get("/admin/jobs/runtaskjob/?q=default"))


def test_nothing_can_be_changed_and_the_list_has_few_queries(api: Api, root: Client) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as seen:
            page(root.get("/admin/jobs/runtaskjob/"))
        return len(seen)

    api.run()
    few = count()
    for _ in range(20):
        api.run()
    assert count() == few <= 8
    first = RuntaskJob.objects.earliest("pk").pk
    for path in ("add/", f"{first}/delete/"):
        assert root.post(f"/admin/jobs/runtaskjob/{path}", {"post": "yes"}).status_code == 403


def test_definitions_and_what_is_wrong_with_them(root: Client, tmp_path: Any, settings: Any) -> None:
    settings.GANTRY_RUNTASK_DEFINITIONS = tmp_path
    define(tmp_path, "count", 'wc -l "$1" # <i>', '{"parameters": ["a", "b"], "description": "Lines"}')
    define(tmp_path, "boxed", "true", '{"parameters": 3, "image": "busybox:1", "first": true}')
    define(tmp_path, "bad", "true", '{"first": "x"}')
    shown = page(root.get("/admin/jobs/runtaskdefinition/"))
    for text in ("count", "Lines", "a, b", "busybox:1", "bad cannot be used: job_define.json: first must be"):
        assert text in shown
    assert "<i>" not in shown
    found = {message.id: message.msg for message in checks.job_definitions()}
    assert list(found) == ["gantry.W007"]
    assert "The job definition bad cannot be used" in found["gantry.W007"]
    settings.GANTRY_RUNTASK_DEFINITIONS = tmp_path / "nowhere"
    assert [message.id for message in checks.job_definitions()] == ["gantry.W006"]
    assert "cannot be read" in page(root.get("/admin/jobs/runtaskdefinition/"))
    nobody = Client()
    assert nobody.get("/admin/jobs/runtaskdefinition/").status_code == 302


def test_settings_with_which_no_job_could_run(settings: Any) -> None:
    assert checks.runtask_settings() == []
    settings.GANTRY_RUNTASK_CPUS = settings.GANTRY_RUNTASK_TIMEOUT_S = 0
    settings.GANTRY_RUNTASK_CONTAINER = "a/b"
    assert [message.id for message in checks.runtask_settings()] == [
        "gantry.E004",
        "gantry.E004",
        "gantry.E005",
    ]
