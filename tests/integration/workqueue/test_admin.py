"""Operators' pages of the workqueue: sites are changed as by the calls, jobs are looked at; no secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.contracts.workqueue.conftest import ENDPOINT, Api, Filled, _keys, member, node, ok
from workers.tenants import identity, tenancy
from workqueue.models import Batch, Element, Job, Link, LinkChange, Site
from workqueue.models.jobs import Status, Type

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


def sent(name: str, **fields: object) -> dict[str, Any]:
    """What the form sends."""
    return {
        "name": name, "visibility": "public", "default_path": "/", "endpoints": json.dumps([ENDPOINT]),
        "cas": "[]", "host_keys": "[]", "description": "", "ban": "", "ban_message": "", **fields,
    }  # fmt: skip


def test_a_site_is_made_and_changed(api: Api, root: Client) -> None:
    node("/data")
    local = json.dumps([{"protocol": "LOCAL", "path": "/data/x"}])
    made = root.post("/admin/workqueue/site/add/", sent("archive", tenant=api.tenant.pk, endpoints=local))
    assert made.status_code == 302, page(made)
    site = Site.objects.get()
    assert (site.by_operator, site.endpoints[0]["path"], site.tenant_id) == (True, "/data/x", api.tenant.pk)
    path = f"/admin/workqueue/site/{site.pk}/change/"
    change = sent("archive", max_active_in="3", ban="wait", ban_message="full", description="new")
    assert root.post(path, change).status_code == 302
    found = ok(api.get(f"/sites/{site.pk}"))
    assert (found["limits"]["max_active_in"], found["ban"]["mode"]) == (3, "wait")
    assert (found["description"], found["endpoints"][0]["protocol"]) == ("new", "SFTP")
    assert root.post(path, sent("archive")).status_code == 302
    assert ok(api.get(f"/sites/{site.pk}"))["ban"] is None


def test_what_the_calls_refuse_the_form_refuses(api: Api, root: Client) -> None:
    taken = api.site("taken")
    add = "/admin/workqueue/site/add/"
    tenant = {"tenant": api.tenant.pk}
    for change, told in (
        ({"endpoints": "[5]"}, "endpoints[0] must be an object"),
        ({"endpoints": json.dumps([{"protocol": "LOCAL", "path": "/data"}])}, "no node offers the folder"),
        ({"default_path": "x"}, "must begin with a slash"),
        ({"host_keys": '["x"]'}, "known_hosts"),
        ({"max_active_in": "0"}, "max_active_in must be"),
        ({"name": "taken"}, "has a site of this name"),
        ({"endpoints": "{"}, "valid JSON"),
    ):
        assert told in page(root.post(add, {**sent("s", **tenant), **change}))
    mine = f"/admin/workqueue/site/{taken}/change/"
    assert "only operators" in page(root.post(mine, sent("taken")))
    assert Site.objects.count() == 1


def test_sites_show_links_and_no_secret(api: Api, root: Client) -> None:
    one, two = api.site("one"), api.site("two")
    ok(
        api.put(
            f"/sites/{one}/credentials", {"username": "canary", "password": "canary", "key": "-----BEGIN x"}
        )
    )
    for source, target in ((one, two), (two, one)):
        link = Link.objects.create(source_id=source, target_id=target, streams=6, sentence="six are faster")
        for number in range(3):
            LinkChange.objects.create(link=link, streams_before=4, streams=6, sentence=f"change {number}")
    shown = page(root.get(f"/admin/workqueue/site/{one}/change/"))
    assert "canary" not in shown
    assert "ann: username, password, key" in shown
    assert shown.count("six are faster") == 2
    assert shown.count("change 2") == 2
    ok(api.delete(f"/sites/{two}"))
    assert root.post(f"/admin/workqueue/site/{two}/change/", sent("two")).status_code == 403
    assert page(root.get("/admin/workqueue/site/?q=one")).count("field-name") == 1


def test_jobs_with_what_runs_waits_and_failed(api: Api, root: Client) -> None:
    site = api.site()
    filled = Filled(api.job("copy", src_siteid=site, dst_siteid=site, dst_filepath="b")["id"])
    for number, status in enumerate((Status.DONE, Status.RUNNING, Status.SUBMITTED, Status.NEW)):
        filled.element(number, Type.COPY, status, dst_filepath=f"to{number}", transferred=7)
    batch = Batch.objects.create(job=filled.job, source_id=site)
    Element.objects.filter(job=filled.job, number=1).update(batch=batch)
    filled.element(4, Type.COPY, Status.FAILED, (Status.FAILED, "no"), (Status.FAILED, "<b>denied</b>"))
    filled.count(num_done=1, num_running=1, num_submitted=1, num_new=1, num_failed=1)
    shown = page(root.get(f"/admin/workqueue/job/{filled.job.pk}/change/"))
    for told in ("COPY dir/f1 to to1", "to2", "to3", "&lt;b&gt;denied", "1 running", "RUNNING"):
        assert told in shown
    assert "to0" not in shown
    assert page(root.get("/admin/workqueue/job/?work=left")).count("field-what") == 1
    assert page(root.get("/admin/workqueue/job/?work=ended")).count("field-what") == 0
    assert page(root.get("/admin/workqueue/job/?work=failed")).count("field-what") == 0
    Job.objects.update(finished_at=Now())
    assert page(root.get("/admin/workqueue/job/?work=failed")).count("field-what") == 1
    assert "1 failed; element 4: &lt;b&gt;denied" in page(
        root.get(f"/admin/workqueue/job/{filled.job.pk}/change/")
    )
    assert page(root.get(f"/admin/workqueue/job/?q={filled.job.pk}")).count("field-what") == 1
    assert page(root.get("/admin/workqueue/job/?q=x")).count("field-what") == 0
    assert root.post(f"/admin/workqueue/job/{filled.job.pk}/delete/", {"post": "yes"}).status_code == 403


def test_lists_have_few_queries(api: Api, root: Client) -> None:
    sites = [api.site(f"s{number}") for number in range(12)]
    for site in sites:
        api.job(src_siteid=site)
    for path in ("/admin/workqueue/site/", "/admin/workqueue/job/"):
        with CaptureQueriesContext(connection) as seen:
            page(root.get(path))
        assert len(seen) <= 9, path
