"""What every answer of the API has in common: paths, methods, Accept, headers, errors."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from tests.integration.conftest import Api
from tests.support.fixtures import Account
from workers import services


@pytest.mark.parametrize(
    "path", ["/api/v1/runs", "/api/v1/me", "/v1/tasks?taskIds=1", "/api/schema", "/readyz"]
)
def test_both_spellings_answer_directly(api: Api, account: Account, path: str) -> None:
    bare, _, query = path.partition("?")
    for spelling in (bare, f"{bare}/"):
        status, _, response = api(account, "GET", f"{spelling}?{query}" if query else spelling)
        assert status == 200, spelling
        assert "Location" not in response.headers


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/api/v1", "/api/v1/nothing", "/v1/tasks/x/y", "/api/v1/runs//"]
)
def test_unknown_paths_are_json(api: Api, account: Account, path: str) -> None:
    status, body, response = api(account, "GET", path)
    assert status == 404
    assert response["Content-Type"] == "application/json"
    assert "message" in json.dumps(body)


def test_a_wrong_method_is_405_with_allow(api: Api, account: Account) -> None:
    for path in ("/api/v1/runs", "/v1/tasks/kill", "/healthz"):
        status, _, response = api(account, "PUT", path)
        assert status == 405
        assert {"OPTIONS"} < set(response["Allow"].split(", "))
        assert "PUT" not in response["Allow"]


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "nonsense", "*/*;q=0", ""])
def test_accept_is_ignored(api: Api, account: Account, accept: str) -> None:
    for path in ("/api/v1/runs", "/api/v1/runs/0", "/v1/tasks?taskIds=1"):
        _, _, response = api(account, "GET", path, Accept=accept)
        assert response.status_code in (200, 404)
        assert response["Content-Type"] == "application/json"


def test_headers_of_every_answer(api: Api, account: Account) -> None:
    for path in ("/api/v1/runs", "/nothing", "/v1/tasks?taskIds=x", "/healthz"):
        _, _, response = api(account, "GET", path, X_Request_Id="abc-1")
        assert response["X-Request-Id"] == "abc-1"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Cache-Control"] == "no-store"
        assert "default-src 'none'" in response["Content-Security-Policy"]
        assert int(response["Content-Length"]) == len(response.content)
        assert response.reason_phrase
    made = api(account, "GET", "/healthz", X_Request_Id="not acceptable\x01")[2]["X-Request-Id"]
    assert len(made) == 16


def test_an_unforeseen_error_is_json_without_a_trace(
    account: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(services, "find", broken)
    answer = Client(raise_request_exception=False).get(
        "/api/v1/runs/1", headers={**account.headers, "X-Request-Id": "trace-me"}
    )
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert b"secret" not in answer.content
    assert b"Traceback" not in answer.content
    assert "the secret inside" in caplog.text, "the log has what the client is not told"
