"""Every error below /workqueue has the family's envelope; identity, methods, bodies, scopes, stops."""

from __future__ import annotations

import base64
from itertools import product
from typing import Any

from django.db import OperationalError, connection
from django.utils import timezone

from tests.contracts.workqueue.conftest import V10, V11, Api, Filled, body, error, member, ok
from workqueue.models import Job
from workqueue.models.jobs import Status, Type

_JOB, _SITE = "/jobs/1", "/sites/1"
ROUTES = [
    *(("POST", f"/{name}") for name in ("jobs", "list", "copy", "remove", "rename", "mkdir", "sites")),
    *(("GET", path) for path in ("/jobs", "/sites", _JOB, f"{_JOB}/elements", f"{_JOB}/output")),
    *(("GET", f"{_JOB}/{name}") for name in ("status", "progress", "explain", "elements/0")),
    *(("GET", f"{_JOB}/elements/0/{name}") for name in ("status", "output", "output/1")),
    *(("POST", f"{_JOB}/{name}") for name in ("cancel", "retry")),
    *((method, _SITE) for method in ("GET", "PUT", "DELETE")),
    *((method, f"{_SITE}/{name}") for name in ("credentials", "ban") for method in ("PUT", "DELETE")),
    ("PUT", f"{_SITE}/limits"),
    ("GET", f"{_SITE}/links"),
]


def test_credentials_and_scopes(api: Api) -> None:
    reader, writer = member("10002", "rea", "read"), member("10002", "wri", "submit")
    nobody = [Api(api.tenant, token) for token in ("", "gnt_of_nobody")]
    for base, (method, path) in product((V10, V11), ROUTES):
        error((writer if method == "GET" else reader).send(method, base + path), 403)
        for who in nobody if base == V10 else nobody[:1]:
            answer = who.send(method, base + path)
            error(answer, 401)
            assert answer.headers["WWW-Authenticate"]
            assert answer.reason_phrase == "Unauthorized"


def test_a_method_that_is_not_there(api: Api) -> None:
    for method, path in (
        *(("GET", f"/{name}") for name in ("list", "copy", "remove", "rename", "mkdir")),
        *(("PUT", "/jobs"), ("DELETE", "/jobs/1"), ("POST", "/jobs/1"), ("GET", "/jobs/1/cancel")),
        *(("GET", "/jobs/1/retry/"), ("POST", "/jobs/1/elements"), ("PATCH", "/sites/1")),
        *(("GET", "/sites/1/credentials"), ("POST", "/sites/1/ban"), ("PUT", "/sites/1/links")),
    ):
        answer = api.send(method, path)
        error(answer, 405)
        assert answer.headers["Allow"]


def test_a_path_that_is_not_there(api: Api) -> None:
    for path in (
        *("/workqueue", "/workqueue/", V10, f"{V10}/", "/workqueue/api/v2.0/jobs", "/workqueue/x"),
        *(f"{V10}/nothing", f"{V10}/jobs/1/x", f"{V10}/jobs//elements", f"{V11}/sites/1/x"),
        *(f"{V10}/jobs/1/elements/0/output/1/2", f"{V10}/copy/1"),
    ):
        for method in ("GET", "POST"):
            error(api.send(method, path), 404)


def test_with_and_without_a_slash(api: Api, site: int) -> None:
    sent = {"src_siteid": site, "src_filepath": "a"}
    for path in ("/list", "/list/"):
        assert api.post(path, sent).status_code == 200
    assert body(api.get("/jobs")) == body(api.get("/jobs/"))


def test_bodies_that_are_refused(api: Api) -> None:
    for path in ("/jobs", "/copy", "/sites"):
        _refused(api, path)
    assert not Job.objects.exists()


def _refused(api: Api, path: str) -> None:
    error(api.send("POST", path, b'{"x":"' + b"x" * 1024 * 1024 + b'"}', "application/json"), 413)
    error(api.send("POST", path, b"<a/>", "application/xml"), 415)
    error(api.send("POST", path, b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"), 415)
    for sent in (b"{", b"[]", b"5", b'"x"', b"\xff", b"a=b", b'{"src_filepath": "\\ud800"}'):
        error(api.send("POST", path, sent, "application/json"), 400)


def test_accept_and_the_declared_type_are_ignored(api: Api, site: int) -> None:
    sent = f'{{"src_siteid": {site}, "src_filepath": "a"}}'
    for kind in ("", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-8"):
        ok(api.send("POST", "/list", sent, kind, Accept="text/html"))
    assert len(ok(api.get("/jobs", Accept="image/png"))) == 4


def test_another_tenants_name_in_the_header(api: Api) -> None:
    for name in ("10003", "nobody"):
        error(api.get("/jobs", X_Tenant_Id=name), 403)


def test_a_database_that_does_not_answer(api: Api) -> None:
    api.get("/jobs")

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    with connection.execute_wrapper(refuse):
        for path in ("/jobs", "/jobs/1", "/sites"):
            answer = api.get(path)
            assert "10.1.2.3" not in error(answer, 503)
            assert answer.headers["Retry-After"]


def test_a_cross_site_page_may_not_submit(api: Api, site: int) -> None:
    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    sent = {"src_siteid": site, "src_filepath": "a"}
    error(api.post("/list", sent, Authorization=f"Basic {basic}", Sec_Fetch_Site="cross-site"), 403)
    assert not Job.objects.exists()


def test_cancel(api: Api, operator: Api, site: int) -> None:
    made, other = api.job(src_siteid=site), api.job(src_siteid=site)
    told = ok(api.post(f"/jobs/{made['id']}/cancel"))
    assert told == {"jobid": made["id"], "status": "FAILED", "cancelled": True}
    assert ok(api.post(f"{V11}/jobs/{made['id']}/cancel"))["cancelled"] is False
    assert ok(operator.post(f"/jobs/{other['id']}/cancel/"))["cancelled"] is True
    by_operator = Job.objects.order_by("pk").values_list("cancelled_by_operator", flat=True)
    assert list(by_operator) == [False, True]


def test_retry(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site)["id"])
    path = f"/jobs/{filled.job.pk}/retry"
    filled.element(0, Type.LIST, Status.DONE, (Status.DONE, "x"))
    filled.count(num_done=1)
    error(api.post(path), 409)
    for number in (1, 2):
        filled.element(number, Type.COPY, Status.FAILED, (Status.FAILED, "x"), dst_filepath="b")
    filled.count(num_done=1, num_failed=2)
    told = ok(api.post(path, Idempotency_Key="k"))
    assert told == {"jobid": filled.job.pk, "status": "SUBMITTED", "retried": 2}
    assert ok(api.post(path, Idempotency_Key="k")) == told
    error(api.post(path), 409)


def test_retry_at_sites_that_take_no_new_jobs(api: Api, operator: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site)["id"])
    filled.element(0, Type.LIST, Status.FAILED, (Status.FAILED, "x"))
    filled.count(num_failed=1)
    Job.objects.update(finished_at=timezone.now())
    path = f"/jobs/{filled.job.pk}/retry"
    ok(operator.put(f"/sites/{site}/ban", {"mode": "wait", "message": "full"}))
    assert "full" in error(api.post(path), 409)
    ok(operator.delete(f"/sites/{site}/ban"))
    ok(api.delete(f"/sites/{site}"))
    assert "deleted" in error(api.post(path), 409)


def test_explain(api: Api, site: int) -> None:
    made = api.job(src_siteid=site)
    for base in (V10, V11):
        told = ok(api.get(f"{base}/jobs/{made['id']}/explain"))
        assert set(told) == {"state", "since", "reasons", "position", "estimate"}
