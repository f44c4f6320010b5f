"""Every error below /v1 that is not the tasks family's has this family's envelope, whatever goes wrong."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import override_settings

from queues.models import Entry
from tests.contracts.queues.conftest import BODY, Api, data, error, member

ROUTES = [
    ("GET", "/v1/vm/"),
    ("POST", "/v1/vm/"),
    ("GET", "/v1/vm/d/"),
    ("POST", "/v1/vm/d"),
    ("DELETE", "/v1/vm/d/"),
    ("GET", "/v1/vm/d/explain"),
    ("POST", "/v1/vm/d/confirm"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_and_bad_credentials(api: Api, method: str, path: str) -> None:
    for token in ("", "gnt_of_nobody"):
        api.token = token
        answer = api.send(method, path)
        error(answer, 401)
        assert answer.headers["WWW-Authenticate"]
        assert answer.reason_phrase == "Unauthorized"


def test_scopes(api: Api) -> None:
    data(api.post("/v1/vm/", BODY))
    reader, writer = member("10002", "rea", "read"), member("10002", "wri", "submit")
    for method, path in ROUTES:
        error((writer if method == "GET" else reader).send(method, path), 403)
    assert Entry.objects.get().status == "queued"
    data(reader.get("/v1/vm/d"))
    data(reader.get("/v1/vm/"))
    data(writer.post("/v1/vm/d", {"priority": 1}))
    data(writer.delete("/v1/vm/d"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/vm"),
        ("DELETE", "/v1/vm/"),
        ("PATCH", "/v1/vm/d"),
        ("PUT", "/v1/vm/d/"),
        ("POST", "/v1/vm/d/explain"),
        ("GET", "/v1/vm/d/confirm"),
        ("DELETE", "/v1/vm/d/confirm/"),
    ],
)
def test_a_method_that_is_not_there(api: Api, method: str, path: str) -> None:
    answer = api.send(method, path)
    assert error(answer, 405)[0] == "method_not_allowed"
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v1//", "/v1/vm/d/e", "/v1/vm/d/explain/x", "/v1/vm//", "/v1//d", "/v1/vm/d/e/f/g"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_path_that_is_not_there(api: Api, method: str, path: str) -> None:
    error(api.send(method, path), 404)


def test_what_is_unknown(api: Api) -> None:
    for method, path in (("GET", "/v1/vm/d/"), ("DELETE", "/v1/vm/d"), ("GET", "/v1/vm/d/explain")):
        code, message = error(api.send(method, path), 404)
        assert code
        assert "d" in message
    error(api.post("/v1/vm/d", {"priority": 1}), 404)
    error(api.post("/v1/vm/d/confirm"), 404)
    assert data(api.get("/v1/vm/")) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/tasks/abc", 404),
        ("GET", "/v1/tasks/1/confirm", 404),
        ("POST", "/v1/tasks/d/confirm", 404),
        ("DELETE", "/v1/tasks/d", 404),
        ("POST", "/v1/tasks/", 400),
        ("GET", "/v1/tasks/", 400),
        ("PUT", "/v1/tasks", 405),
    ],
)
def test_the_word_tasks_is_another_familys(api: Api, method: str, path: str, status: int) -> None:
    answer = api.send(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"status", "message"}


@pytest.mark.parametrize("path", ["/v1/vm/", "/v1/vm/d"])
def test_bodies_that_are_refused(api: Api, path: str) -> None:
    data(api.post("/v1/vm/", BODY))
    was = list(Entry.objects.values())
    large = b'{"request_id":"' + b"x" * (1024 * 1024) + b'"}'
    error(api.send("POST", path, large, "application/json"), 413)
    error(api.send("POST", path, b"<entry/>", "application/xml"), 415)
    error(api.send("POST", path, b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"), 415)
    for sent in (b"{", b"[]", b"5", b'"x"', b"", b"{}", b"null", b"\xff"):
        error(api.send("POST", path, sent, "application/json"), 400)
    assert list(Entry.objects.values()) == was


def test_accept_is_ignored(api: Api) -> None:
    assert data(api.get("/v1/vm/", Accept="text/html")) == []


def test_too_many_bad_credentials(api: Api) -> None:
    from config.http import authentication, peers

    old, authentication._failures = authentication._failures, peers.Buckets(burst=2, per_second=0.001)
    try:
        api.token = "gnt_of_nobody"
        assert 429 in [api.get("/v1/vm/").status_code for _ in range(6)]
        answer = api.get("/v1/vm/")
        assert error(answer, 429)[0]
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        authentication._failures = old


def test_our_own_fault_shows_nothing_of_the_inside(api: Api) -> None:
    with override_settings(GANTRY_LIST_CAP="s3cret, not a number"):
        code, message = error(api.get("/v1/vm/"), 500)
    assert code == "internal"
    assert "s3cret" not in message
    assert "Traceback" not in message


def test_a_database_that_does_not_answer(api: Api) -> None:
    api.get("/v1/vm/")

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError("connection to server at 10.1.2.3 failed")

    with connection.execute_wrapper(refuse):
        answer = api.get("/v1/vm/")
    assert "10.1.2.3" not in error(answer, 503)[1]
    assert answer.headers["Retry-After"]


def test_a_cross_site_page_may_not_submit(api: Api) -> None:
    basic = base64.b64encode(f"ann:{api.token}".encode()).decode()
    answer = api.post("/v1/vm/", BODY, Authorization=f"Basic {basic}", Sec_Fetch_Site="cross-site")
    error(answer, 403)
    assert not Entry.objects.exists()


def test_another_tenants_name_in_the_header(api: Api, stranger: Api) -> None:
    error(api.get("/v1/vm/", X_Tenant_Id="10003"), 403)
    error(api.get("/v1/vm/", X_Tenant_Id="nobody"), 403)
    assert data(api.get("/v1/vm/", X_Tenant_Id="10002")) == []
    assert stranger.ids() == []


def test_options(api: Api) -> None:
    assert api.send("OPTIONS", "/v1/vm").headers["Allow"] == "GET, POST, HEAD, OPTIONS"
    assert api.send("OPTIONS", "/v1/vm/d/").headers["Allow"] == "GET, POST, DELETE, HEAD, OPTIONS"
