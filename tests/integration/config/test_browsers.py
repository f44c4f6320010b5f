"""Browsers are not accomplices: what other sites make them send changes nothing. No CORS, no foreign Host."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.support.fixtures import Account
from workers.models import Run

pytestmark = pytest.mark.invariant

ME = "/api/v1/me"


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://testserver.evil.example"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://testserver"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"},
]


def submit(client: Client, headers: dict[str, str]) -> int:
    body = json.dumps({"taskName": "n", "commands": "true"})
    return client.post("/v1/tasks", body, "application/json", headers=headers).status_code


@pytest.mark.parametrize("kind", ["basic", "network", "session", "token", "x-token"])
def test_other_sites_change_nothing_with_what_a_browser_sends_by_itself(
    client: Client, account: Account, settings: Any, kind: str
) -> None:
    headers: dict[str, str] = {}
    if kind == "basic":
        headers = basic(account.user, account.token)
    elif kind == "network":
        settings.GANTRY_TRUSTED_NETWORKS = ["127.0.0.0/8=default"]
    elif kind == "session":
        client.force_login(User.objects.get(username=account.user))
        client.cookies["csrftoken"] = "c" * 32
        headers = {"X-CSRFToken": "c" * 32}
    elif kind == "x-token":
        headers = {"X-Token": account.token}
    else:
        headers = account.headers
    by_hand = kind in ("token", "x-token")  # no browser sends these by itself
    for foreign in FOREIGN:
        assert submit(client, {**headers, **foreign}) == (200 if by_hand else 403), foreign
    assert Run.objects.count() == (len(FOREIGN) if by_hand else 0)
    for own in OWN:
        assert submit(client, {**headers, **own}) == 200, own
    for foreign in FOREIGN:
        assert client.get("/v1/tasks?taskIds=1", headers={**headers, **foreign}).status_code == 200


def test_a_token_beside_a_session_is_what_counts(client: Client, account: Account, stranger: Account) -> None:
    """A foreign page cannot add a token to the session that the browser sends; a wrong one opens nothing."""
    client.force_login(User.objects.get(username=account.user))
    for foreign in FOREIGN:
        assert submit(client, foreign) == 403, foreign
        assert submit(client, {"X-Token": "gnt_wrong", **foreign}) == 401, foreign
    assert Run.objects.count() == 0
    assert submit(client, {"X-Token": stranger.token}) == 200
    assert Run.objects.get().tenant_id == stranger.tenant_id


def test_a_session_needs_the_csrf_token_to_change_something(account: Account) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.get(username=account.user))
    assert browser.get(ME).json()["via"] == "session"
    assert submit(browser, {}) == 403
    assert submit(browser, {"X-CSRFToken": "x" * 32}) == 403
    assert Run.objects.count() == 0
    browser.cookies["csrftoken"] = "c" * 32
    assert submit(browser, {"X-CSRFToken": "c" * 32}) == 200


def test_a_session_of_a_plain_user_operates_nothing(account: Account) -> None:
    browser = Client()
    browser.force_login(User.objects.get(username=account.user))
    assert browser.get("/api/v1/tenants").status_code == 403
    User.objects.filter(username=account.user).update(is_superuser=True)
    assert browser.get("/api/v1/tenants").status_code == 200
    User.objects.filter(username=account.user).update(is_active=False)
    assert browser.get(ME).status_code == 401


def test_no_cors_headers_anywhere(client: Client, account: Account) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for method, path in (
        ("GET", ME),
        ("OPTIONS", "/v1/tasks"),
        ("GET", "/static/admin/css/base.css"),
        ("GET", "/no"),
    ):
        answer = client.generic(method, path, headers={**account.headers, **headers})
        answer.close()  # a static file is open until it has been sent
        assert not [name for name in answer.headers if name.lower().startswith("access-control")], path


def test_a_foreign_host_is_refused_in_json(client: Client, account: Account) -> None:
    for path in (ME, "/v1/tasks?taskIds=1", "/healthz", "/admin/", "/static/admin/css/base.css"):
        answer = client.get(path, headers={**account.headers, "Host": "evil.example"})
        assert answer.status_code == 400
        assert answer["Content-Type"] == "application/json"
        assert b"GANTRY_ALLOWED_HOSTS" in answer.content
