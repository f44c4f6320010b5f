"""Every error below /api/jobs has the family's envelope; identity, methods, bodies, scopes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection

from jobs.models import Job
from tests.contracts.jobs.conftest import BODY, NOBODY, Api, Stage, error, member, ok

ROUTES = [
    ("GET", "/api/jobs"),
    ("POST", "/api/jobs"),
    ("GET", "/api/jobs/history"),
    ("PUT", f"/api/jobs/{NOBODY}"),
    ("DELETE", f"/api/jobs/{NOBODY}"),
    ("POST", f"/api/jobs/{NOBODY}/start"),
    ("GET", f"/api/jobs/{NOBODY}/inspect/1"),
    ("GET", f"/api/jobs/{NOBODY}/log/1?ContainerId=c"),
    ("GET", f"/api/jobs/{NOBODY}/explain/1"),
    ("POST", f"/api/jobs/{NOBODY}/cancel/1"),
    ("POST", f"/api/jobs/{NOBODY}/retry/1"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_credentials_and_scopes(api: Api, method: str, path: str) -> None:
    reader = member("10002", "reader", "read")
    if method != "GET":
        assert error(reader.send(method, path), 403)[0] == "forbidden"
    else:
        assert reader.send(method, path).status_code in (200, 404)
    for token in ("", "gnt_of_nobody"):
        api.token = token
        answer = api.send(method, path)
        assert error(answer, 401)[0] == "unauthenticated"
        assert answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/jobs"),
        ("DELETE", "/api/jobs/"),
        ("POST", "/api/jobs/history"),
        ("GET", f"/api/jobs/{NOBODY}"),
        ("PATCH", f"/api/jobs/{NOBODY}"),
        ("GET", f"/api/jobs/{NOBODY}/start"),
        ("POST", f"/api/jobs/{NOBODY}/inspect/1"),
        ("DELETE", f"/api/jobs/{NOBODY}/log/1"),
        ("GET", f"/api/jobs/{NOBODY}/cancel/1"),
        ("GET", f"/api/jobs/{NOBODY}/retry/1/"),
    ],
)
def test_a_method_that_is_not_there(api: Api, method: str, path: str) -> None:
    answer = api.send(method, path)
    assert error(answer, 405)[0] == "method_not_allowed"
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "path", [f"/api/jobs/{NOBODY}/nothing", f"/api/jobs/{NOBODY}/start/1", "/api/jobs//"]
)
def test_a_path_that_is_not_there(api: Api, path: str) -> None:
    assert error(api.get(path), 404)[0] == "not_found"


def test_a_path_outside_of_the_family_has_another_envelope(api: Api) -> None:
    assert set(api.get("/api/jobsx").json()) == {"error"}


def test_bodies_that_cannot_be_read(api: Api) -> None:
    big = b'{"Cmd":"' + b"x" * (1024 * 1024) + b'"}'
    assert error(api.send("POST", "/api/jobs", big, "application/json"), 413)[0] == "too_large"
    xml = api.send("POST", "/api/jobs", b"<a/>", "application/xml")
    assert error(xml, 415)[0] == "unsupported_media_type"
    for text in (b"{", b"[1]", b'{"Name": "\\u0000"}', b"\xff"):
        assert error(api.send("POST", "/api/jobs", text, "application/json"), 400)[0] == "invalid_body"
    assert error(api.post("/api/jobs", BODY, Idempotency_Key="k" * 256), 400)[0] == "invalid_body"
    assert not Job.objects.exists()


def test_an_unknown_tenant_is_forbidden(api: Api) -> None:
    assert error(api.get("/api/jobs", X_Tenant_Id="nobody"), 403)[0] == "forbidden"


def test_a_database_that_does_not_answer(api: Api) -> None:
    api.get("/api/jobs")

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    with connection.execute_wrapper(refuse):
        answer = api.get("/api/jobs")
    found, message = error(answer, 503)
    assert (found, "10.1.2.3" in message) == ("internal_error", False)
    assert answer.headers["Retry-After"]


def test_a_cross_site_page_may_not_save_for_a_basic_user(api: Api) -> None:
    import base64

    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    answer = api.post("/api/jobs", BODY, Authorization=f"Basic {basic}", Sec_Fetch_Site="cross-site")
    assert error(answer, 403)[0] == "forbidden"
    assert not Job.objects.exists()


def test_no_secret_in_a_log_line_or_a_row(api: Api, stage: Stage, capfd: Any) -> None:
    job = api.job(SecretArgs=["canary-secret"])
    api.start(job, ("a", "n1"))
    ok(api.put(f"/api/jobs/{job['JobId']}", {**BODY, "SecretArgs": ["canary-secret", "canary-secret"]}))
    error(api.post("/api/jobs", {**BODY, "SecretArgs": ["canary-secret", 1]}), 400)
    told = capfd.readouterr()
    assert "canary-secret" not in told.out + told.err
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(r::text, '') FROM workers_run r")
        assert "canary-secret" not in cursor.fetchone()[0]
