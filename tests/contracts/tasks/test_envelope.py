"""Every error below /v1/tasks has the family's envelope, whatever goes wrong and wherever."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from tests.contracts.tasks.conftest import UNKNOWN, Api, count, error
from workers.models import Token
from workers.tenants import identity, tenancy

ROUTES = [
    ("GET", "/v1/tasks?taskIds=1"),
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/kill?taskId=1"),
    ("POST", "/v1/tasks/reconcile?taskIds=1"),
    ("GET", "/v1/tasks/1"),
    ("GET", "/v1/tasks/1/logs"),
    ("GET", "/v1/tasks/1/explain"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_credentials(api: Api, method: str, path: str) -> None:
    api.token = ""
    answer = api.send(method, path)
    assert error(answer, 401)[0] == -2127552013
    assert answer.headers["WWW-Authenticate"]
    assert answer.reason_phrase == "Unauthorized"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_bad_token(api: Api, method: str, path: str) -> None:
    api.token = "gnt_of_nobody"
    answer = api.send(method, path)
    assert error(answer, 401)[0] == -2127552014
    assert answer.headers["WWW-Authenticate"]


def test_an_expired_token(api: Api) -> None:
    Token.objects.filter(digest=identity.digest(api.token)).update(
        expires_at=timezone.now() - timedelta(days=1)
    )
    answer = api.get("/v1/tasks?taskIds=1")
    assert error(answer, 401)[0] == -2127552015
    assert answer.headers["WWW-Authenticate"]


def test_a_revoked_token(api: Api) -> None:
    tenancy.revoke_token(Token.objects.get(digest=identity.digest(api.token)).pk)
    assert error(api.get("/v1/tasks?taskIds=1"), 401)[0] == -2127552014


def test_x_token_and_basic_work_too(api: Api) -> None:
    import base64

    token, api.token = api.token, ""
    basic = base64.b64encode(f"ann:{token}".encode()).decode()
    assert api.get(f"/v1/tasks?taskIds={UNKNOWN}", X_Token=token).json()["data"] == []
    assert api.get(f"/v1/tasks?taskIds={UNKNOWN}", Authorization=f"Basic {basic}").json()["data"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/tasks"),
        ("DELETE", "/v1/tasks/"),
        ("PATCH", "/v1/tasks"),
        ("GET", "/v1/tasks/kill"),
        ("GET", "/v1/tasks/reconcile/"),
        ("POST", "/v1/tasks/1"),
        ("DELETE", "/v1/tasks/1"),
        ("POST", "/v1/tasks/1/logs"),
        ("POST", "/v1/tasks/1/explain"),
    ],
)
def test_a_method_that_is_not_there(api: Api, method: str, path: str) -> None:
    answer = api.send(method, path)
    assert error(answer, 405)[0] == -2127560592
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tasks/abc",
        "/v1/tasks/1/nothing",
        "/v1/tasks/kill/1",
        "/v1/tasks//",
        "/v1/tasks/9223372036854775808",
        "/v1/tasks/1.5",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_not_there(api: Api, method: str, path: str) -> None:
    assert error(api.send(method, path), 404)[0] == -2127560592


def test_a_path_outside_of_the_family_has_another_envelope(api: Api) -> None:
    answer = api.get("/api/v1/tasks")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
    answer = api.get("/v1/tasksx/a")  # a queue's type
    assert answer.status_code == 404
    assert set(answer.json()) == {"ok", "error"}


def test_a_body_that_is_too_large(api: Api) -> None:
    body = b'{"taskName":"a","commands":"' + b"x" * (1024 * 1024) + b'"}'
    for path in ("/v1/tasks", "/v1/tasks/kill"):
        assert error(api.send("POST", path, body, "application/json"), 413)[0] == -2127560592
    assert count() == 0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<task><taskName>a</taskName></task>", "application/xml"),
        (b'{"taskName":"a","commands":"true"}', "application/json; charset=klingon"),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_is_not_json(api: Api, body: bytes, content_type: str) -> None:
    assert error(api.send("POST", "/v1/tasks", body, content_type), 415)[0] == -2127560592
    assert count() == 0


def test_too_many_bad_credentials(api: Api) -> None:
    from config.http import authentication, peers

    old, authentication._failures = authentication._failures, peers.Buckets(burst=2, per_second=0.001)
    try:
        api.token = "gnt_of_nobody"
        statuses = [api.get("/v1/tasks?taskIds=1").status_code for _ in range(5)]
        assert statuses[0] == 401
        answer = api.get("/v1/tasks?taskIds=1")
        assert error(answer, 429)[0] == -2127560592
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        authentication._failures = old


def test_our_own_fault_shows_nothing_of_the_inside(api: Api) -> None:
    task_id = api.submit()
    with override_settings(GANTRY_LEASE_S="s3cret, not a number"):
        answer = api.get(f"/v1/tasks?taskIds={task_id}")
    number, message = error(answer, 500)
    assert number == -2127560704
    assert "s3cret" not in message
    assert "Traceback" not in message


def test_a_database_that_does_not_answer(api: Api, settings: Any) -> None:
    from django.db import OperationalError, connection

    api.get("/v1/tasks?taskIds=1")

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    with connection.execute_wrapper(refuse):
        answer = api.get("/v1/tasks?taskIds=1")
    number, message = error(answer, 503)
    assert number == -2127552011
    assert "10.1.2.3" not in message
    assert answer.headers["Retry-After"]


def test_a_cross_site_page_may_not_submit_for_a_basic_user(api: Api) -> None:
    import base64

    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    answer = api.post(
        "/v1/tasks",
        {"taskName": "a", "commands": "true"},
        Authorization=f"Basic {basic}",
        Sec_Fetch_Site="cross-site",
    )
    assert error(answer, 403)[0] == -2127560624
    assert count() == 0


def test_options_says_which_methods_there_are(api: Api) -> None:
    answer = api.send("OPTIONS", "/v1/tasks")
    assert answer.status_code == 200
    assert answer.headers["Allow"] == "GET, POST, HEAD, OPTIONS"
