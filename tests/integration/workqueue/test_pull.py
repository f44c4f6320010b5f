"""Pull workers: the original's own worker protocol, spoken by a client that knows nothing but HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from tests.integration.conftest import Api
from tests.support.fixtures import Account, make_account
from workers.models import Membership, Tenant
from workqueue.book import dispatching, opening, settling
from workqueue.models import Batch, Element, ElementAttempt, Job, Site
from workqueue.models.jobs import Status, Type

ROOT = "/workqueue/api/v1.0"
SFTP = {"protocol": "SFTP", "host": "a.example", "port": 22, "path": "/"}
GRIDFTP = {"protocol": "GRIDFTP", "host": "g.example", "port": 0, "path": "/", "options": {}}


@pytest.fixture
def worker(account: Account) -> Account:
    """Somebody with the scope worker alone."""
    return make_account("default", scopes=("worker",), trusted=True)


def site(account: Account, name: str = "far", **given: Any) -> Site:
    fields = {"name": name, "visibility": "tenant", "endpoints": [GRIDFTP], **given}
    return Site.objects.create(tenant_id=account.tenant_id, **fields)


def a_job(account: Account, kind: Type = Type.COPY, **given: Any) -> Job:
    """A job of the account's user, as POST makes it."""
    here = given.pop("source", None) or Site.objects.filter(name="far").first() or site(account)
    two = kind == Type.COPY
    job = Job.objects.create(
        **{
            "tenant_id": account.tenant_id,
            "user": User.objects.get(username=account.user),
            "type": kind,
            "source": here,
            "target": here if two else None,
            "src_filepath": "~/in",
            "dst_filepath": "/out" if two or kind == Type.RENAME else None,
            "protocol": "GRIDFTP",
            "log_uid": "0" * 32,
            "pull": True,
            **given,
        }
    )
    opening.begin(job)
    return job


class Puller:
    """The original's loop: takes, does one after the other, reports."""

    def __init__(self, who: Account) -> None:
        self.who = who
        self.client = Client()

    def take(self, *types: int, status: int = 200, by: tuple[str, int] | None = None) -> Any:
        """``by``: ("limit", 3) or ("size", bytes)."""
        algorithm = {"limit": "BY_NUMBER", "size": "by_Size"}
        chosen = {"algorithm": algorithm[by[0]], "algorithm.args": dict([by])} if by else {}
        body = json.dumps({"types": list(types), **chosen})
        response = self.client.post(
            f"{ROOT}/worker/jobs", body, "application/json", headers={"X-Token": self.who.token}
        )
        assert response.status_code == status, response.content
        return response.json()

    def put(self, element: dict[str, Any], body: Any, where: str = "", token: str | None = None) -> int:
        path = f"{ROOT}/worker/jobs/{element['job_id']}/elements/{element['id']}{where}"
        headers = {"X-Token": element["token"] if token is None else token}
        response = self.client.put(path, json.dumps(body), "application/json", headers=headers)
        self.said = response.content.decode()
        if response.status_code == 200:
            assert self.said == ""
        return int(response.status_code)

    def report(self, element: dict[str, Any], code: int = 0, **more: Any) -> int:
        body = {
            "returncode": code,
            "host": ["vm", ["10.0.0.1"]],
            "log": "did it",
            "timestamp": "noon",
            **more,
        }
        return self.put(element, body)


def listing(*names: str, size: int = 3) -> list[dict[str, Any]]:
    return [{"name": name, "st_mode": 0o100644, "st_size": size, "st_mtime": 7.5} for name in names]


def counted(job: Job) -> None:
    """The counters are what a recount says."""
    job.refresh_from_db()
    told = {
        status: Element.objects.filter(job=job, status=status).count()
        for status in (Status.NEW, Status.DONE, Status.FAILED, Status.SUBMITTED, Status.RUNNING)
    }
    assert told == {
        Status.NEW: job.num_new,
        Status.DONE: job.num_done,
        Status.FAILED: job.num_failed,
        Status.SUBMITTED: job.num_submitted,
        Status.RUNNING: job.num_running,
    }


def test_a_copy_from_its_listing_to_its_end(account: Account, worker: Account) -> None:
    job, puller = a_job(account), Puller(worker)
    (given,) = puller.take(1)
    (element,) = given.pop("elements")
    assert given == {
        "id": job.pk, "user_id": job.user_id, "src_siteid": job.source_id, "dst_siteid": job.target_id,
        "src_filepath": "~/in", "dst_filepath": "/out", "type": 1, "status": 3, "extra_opts": {},
        "priority": 5, "protocol": 0, "log_uid": "0" * 32, "timestamp": given["timestamp"],
        "src_credentials": "", "dst_credentials": "",
    }  # fmt: skip
    shown = ("id", "job_id", "src_filepath", "dst_filepath", "type", "attempts")
    assert [element[name] for name in shown] == [0, job.pk, "~/in", None, 0, 0]
    puller.take(1, status=404)
    assert puller.report(element) == 400, "a LIST brings its listing"
    assert "listing" in puller.said
    found = {"~/in": listing("b", "a"), "~/in/sub dir": listing("c", size=100)}
    assert puller.report(element, listing=found) == 200
    assert puller.report(element, listing=found) == 200, "the same once more"
    counted(job)
    (again,) = puller.take(1)
    assert [(item["src_filepath"], item["dst_filepath"], item["size"]) for item in again["elements"]] == [
        ("~/in/b", "/out/b", 3),
        ("~/in/a", "/out/a", 3),
        ("~/in/sub dir/c", "/out/sub dir/c", 100),
    ]
    first, second, third = again["elements"]
    assert (
        puller.put(first, {"transferred": -1, "elapsed": 0, "instant": 0, "average": 0}, "/monitoring") == 200
    )
    assert Element.objects.get(pk=(job.pk, 1)).status == Status.RUNNING
    for element in (first, second, third):
        assert puller.report(element) == 200
    counted(job)
    assert (job.num_done, job.finished_at is not None) == (4, True)
    log = ElementAttempt.objects.get(pk=(job.pk, 1, 1)).log
    assert log.splitlines()[0] == 'Job run on host: ["vm", ["10.0.0.1"]], returncode: 0, timestamp: noon'
    assert not Batch.objects.filter(closed_at=None).exists()


def test_what_fails_is_tried_again_and_fails_for_good(
    account: Account, worker: Account, settings: Any
) -> None:
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 0
    job, puller = a_job(account, Type.MKDIR), Puller(worker)
    element: dict[str, Any] = {}
    for attempt in (1, 2):
        (given,) = puller.take(4)
        (element,) = given["elements"]
        assert puller.report(element, -7) == 200
        assert ElementAttempt.objects.get(pk=(job.pk, 0, attempt)).returncode == -7
    counted(job)
    assert job.num_failed == 1
    assert puller.report(element, -7) == 200, "the same once more"
    assert puller.report(element, 0) == 400, "no try is left"
    assert "no try left" in puller.said


def test_what_is_asked_for_is_checked(account: Account, worker: Account) -> None:
    puller = Puller(worker)
    bodies: tuple[dict[str, Any], ...] = (
        {},
        {"types": []},
        {"types": [7]},
        {"types": ["1"]},
        {"types": [1], "algorithm": "BY_MOON"},
        {"types": [1], "algorithm": "BY_NUMBER", "algorithm.args": {"size": 1}},
        {"types": [1], "algorithm": "BY_SIZE", "algorithm.args": {"size": 0}},
        {"types": [1], "algorithm.args": [1]},
    )
    for body in bodies:
        response = Client().post(
            f"{ROOT}/worker/jobs", json.dumps(body), "application/json", headers={"X-Token": worker.token}
        )
        assert response.status_code == 400, body
        assert response.json()["error"]["code"] == 400
    assert puller.take(1, by=("limit", 1), status=404)["error"]["code"] == 404


def test_by_number_and_by_size(account: Account, worker: Account) -> None:
    job, puller = a_job(account), Puller(worker)
    (given,) = puller.take(1)
    assert puller.report(given["elements"][0], listing={"~/in": listing(*"abcdefgh", size=40)}) == 200
    (given,) = puller.take(1, by=("limit", 3))
    assert [item["id"] for item in given["elements"]] == [1, 2, 3]
    (given,) = puller.take(1, by=("size", 100))
    assert [item["id"] for item in given["elements"]] == [4, 5]
    (given,) = puller.take(1, by=("size", 1))
    assert [item["id"] for item in given["elements"]] == [6], "at least one"
    counted(job)


def test_a_dead_ones_elements_come_back_and_its_late_report_is_refused(
    account: Account, worker: Account
) -> None:
    job, puller = a_job(account), Puller(worker)
    (given,) = puller.take(1)
    (old,) = given["elements"]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workqueue_batch SET lease_until = now() - interval '1 second'")
    settling.look()
    (given,) = puller.take(1)
    (new,) = given["elements"]
    assert (new["id"], new["token"] != old["token"]) == (0, True)
    assert puller.report(old, listing={"~/in": listing("a")}) == 409
    assert puller.put(old, {"transferred": 1, "elapsed": 1, "instant": 1, "average": 1}, "/monitoring") == 409
    assert puller.report(new, listing={"~/in": listing("a", "b")}) == 200
    counted(job)
    assert job.num_new == 2
    assert puller.report(new, listing={"~/in": listing("a", "b")}) == 200, "the same once more"
    assert puller.report(old, listing={"~/in": listing("a", "b")}) == 409, "the same words, another's lease"


def test_only_the_elements_token_reports(account: Account, worker: Account) -> None:
    a_job(account)
    a_job(account)
    puller = Puller(worker)
    first, second = (item["elements"][0] for item in puller.take(1))
    body = {"returncode": 1, "host": "h", "log": "", "timestamp": "t"}
    for token in ("", "forged", worker.token, second["token"], first["token"] + "A"):
        assert puller.put(first, body, token=token) == 403, token
    assert not ElementAttempt.objects.exists()


def test_reports_that_are_none(account: Account, worker: Account) -> None:
    a_job(account, Type.REMOVE)
    puller = Puller(worker)
    (given,) = puller.take(2)
    (element,) = given["elements"]
    good = {"returncode": 0, "host": "h", "log": "l", "timestamp": "t"}
    for body, says in (
        *(({key: value for key, value in good.items() if key != name}, name) for name in good),
        ({**good, "returncode": "0"}, "returncode"),
        ({**good, "listing": []}, "listing"),
        ({**good, "listing": {"~/in": [{"st_mode": 1}]}}, "listing"),
        ([], "object"),
    ):
        assert puller.put(element, body) == 400, body
        assert says in puller.said, puller.said
    path = f"{ROOT}/worker/jobs/{element['job_id']}/elements/0"
    response = Client().put(
        path, b'{"returncode": 0, ', "application/json", headers={"X-Token": element["token"]}
    )
    assert (response.status_code, "too early" in response.content.decode()) == (400, True)
    assert not ElementAttempt.objects.exists()
    assert puller.put(element, {**good, "more": {"of": [1]}, "listing": {"~/in": listing("x")}}) == 200


def test_never_what_they_cannot_reach_nor_other_tenants(
    account: Account, stranger: Account, worker: Account
) -> None:
    local = site(account, "local", endpoints=[{"protocol": "LOCAL", "path": "/data"}])
    based = site(account, "based", endpoints=[{**GRIDFTP, "path": "/base"}])
    a_job(account, source=local)
    a_job(account, source=based)
    a_job(account, protocol="SSH")
    a_job(account, protocol="S3")
    a_job(stranger, source=site(stranger, "theirs"))
    puller = Puller(worker)
    puller.take(0, 1, 2, 3, 4, status=404)
    Membership.objects.create(
        user=User.objects.get(username=worker.user), tenant=Tenant.objects.get(name="stranger")
    )
    assert len(puller.take(1)) == 1, "an operator has named that tenant, too"


def test_a_job_is_shared_with_runs_of_ours(account: Account, worker: Account) -> None:
    job = a_job(account, pull=False)
    puller = Puller(worker)
    (given,) = puller.take(1)
    dispatching.look()
    assert Batch.objects.count() == 1, "the listing is handed out once"
    assert puller.report(given["elements"][0], listing={"~/in": listing(*map(str, range(500)))}) == 200
    puller.take(1)
    dispatching.look()
    held = Element.objects.filter(job=job).exclude(batch=None)
    assert held.filter(batch__run=None).count() == 20
    assert held.filter(batch__run__isnull=False).count() > 0
    counted(job)


def test_where_a_site_is(api: Api, account: Account, worker: Account) -> None:
    one = site(account, "one", endpoints=[GRIDFTP, {**GRIDFTP, "host": "h.example", "port": 9}, SFTP])
    two = site(account, "two", endpoints=[SFTP], cas=["-----BEGIN CERTIFICATE-----"])
    assert api(worker, "GET", f"/site/api/v1.0/endpoint/{one.pk}")[1] == {
        "endpoints": ["g.example:2811", "h.example:9"]
    }
    assert api(worker, "GET", f"/site/api/v1.0/endpoint/{two.pk}/")[1] == {
        "endpoints": ["a.example:22"],
        "cas": ["-----BEGIN CERTIFICATE-----"],
    }
    assert api(worker, "GET", "/site/api/v1.0/endpoint/999")[:2] == (
        404,
        {"error": {"code": 404, "message": "there is no site 999"}},
    )
    assert api(account, "GET", f"/site/api/v1.0/endpoint/{one.pk}")[0] == 403
