"""Credentials over HTTP: every kind, every refusal, scopes, tenants, browsers, and what it costs."""

from __future__ import annotations

import base64
import json
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config.http import authentication, peers
from tests.support.fixtures import Account, make_account
from tests.support.waiting import wait_until
from workers.models import Membership, Run, Tenant, Token
from workers.tenants import identity, tenancy

pytestmark = pytest.mark.invariant

ME = "/api/v1/me"


@pytest.fixture(autouse=True)
def _fresh_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_failures", peers.Buckets(burst=60, per_second=1))


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def code_of(response: Any) -> str:
    return str(response.json()["error"]["code"])


def test_each_kind_of_credential_is_the_same_user(client: Client, account: Account) -> None:
    for headers, via in (
        ({"Authorization": f"Bearer {account.token}"}, "token"),
        ({"Authorization": f"bearer  {account.token} "}, "token"),
        ({"X-Token": account.token}, "token"),
        (basic(account.user, account.token), "basic"),
    ):
        answer = client.get(ME, headers=headers)
        assert answer.status_code == 200, answer.content
        assert answer.json() == {
            "user": account.user,
            "tenant": "default",
            "tenants": ["default"],
            "scopes": ["read", "submit"],
            "via": via,
        }


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "token_missing"),
        ({"Authorization": "Bearer"}, "token_missing"),
        ({"Authorization": "Bearer  "}, "token_missing"),
        ({"X-Token": ""}, "token_missing"),
        ({"Authorization": "Bearer gnt_nobody"}, "token_invalid"),
        ({"Authorization": "Bearer " + "x" * 10_000}, "token_invalid"),
        ({"X-Token": "gnt_nobody"}, "token_invalid"),
        ({"Authorization": "Digest abc"}, "token_invalid"),
        ({"Authorization": "Basic !!!"}, "token_invalid"),
        ({"Authorization": "Basic " + base64.b64encode(b"nocolon").decode()}, "token_invalid"),
        (basic("admin", "password"), "token_invalid"),
    ],
)
@pytest.mark.django_db
def test_missing_and_bad_credentials_are_401_with_a_challenge(
    client: Client, headers: dict[str, str], code: str
) -> None:
    answer = client.get(ME, headers=headers)
    assert answer.status_code == 401
    assert code_of(answer) == code
    assert answer["WWW-Authenticate"].startswith("Bearer ")
    assert answer["Content-Type"] == "application/json"


def test_a_token_is_only_its_own_users_password(client: Client, account: Account, stranger: Account) -> None:
    answer = client.get(ME, headers=basic(stranger.user, account.token))
    assert (answer.status_code, code_of(answer)) == (401, "token_invalid")


def test_wrong_credentials_are_not_overlooked_for_weaker_ones(
    client: Client, account: Account, settings: Any
) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["127.0.0.0/8=default"]
    assert client.get(ME).status_code == 200
    assert client.get(ME, headers={"Authorization": "Bearer gnt_nobody"}).status_code == 401


def test_expired_revoked_and_switched_off_tokens(client: Client, account: Account, settings: Any) -> None:
    settings.TOKEN_CACHE_S = 0
    token = Token.objects.get(user__username=account.user)
    Token.objects.filter(pk=token.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    answer = client.get(ME, headers=account.headers)
    assert (answer.status_code, code_of(answer)) == (401, "token_expired")
    Token.objects.filter(pk=token.pk).update(expires_at=None, revoked_at=timezone.now())
    answer = client.get(ME, headers=account.headers)
    assert (answer.status_code, code_of(answer)) == (401, "token_invalid")
    assert "revoked" in answer.json()["error"]["message"]
    Token.objects.filter(pk=token.pk).update(revoked_at=None)
    tenancy.set_user_active(account.user, False)
    answer = client.get(ME, headers=account.headers)
    assert (answer.status_code, code_of(answer)) == (401, "token_invalid")
    tenancy.set_user_active(account.user, True)
    assert client.get(ME, headers=account.headers).status_code == 200


def test_the_tasks_family_has_its_own_numbers(client: Client, account: Account, settings: Any) -> None:
    settings.TOKEN_CACHE_S = 0
    Token.objects.filter(user__username=account.user).update(expires_at=timezone.now() - timedelta(days=1))
    for headers, number in (
        ({}, -2127552013),
        ({"X-Token": "gnt_nobody"}, -2127552014),
        (account.headers, -2127552015),
    ):
        answer = client.get("/v1/tasks?taskIds=1", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["status"] == number
        assert set(answer.json()) == {"status", "message"}


def test_a_remembered_token_costs_no_query_and_little_else(
    client: Client, account: Account, settings: Any
) -> None:
    settings.TOKEN_CACHE_S = 60
    client.get("/api/v1/runs", headers=account.headers)
    request = client.get(ME, headers=account.headers).wsgi_request
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    with CaptureQueriesContext(connection) as queries:
        sys.setprofile(count)
        try:
            authentication.identify(request)
        finally:
            sys.setprofile(None)
    assert len(queries) == 0
    # Seen: 36 calls of functions. A hash of a password alone, a row or a serializer are hundreds.
    assert calls < 100


def test_a_token_that_ends_while_it_is_remembered_ends(
    client: Client, account: Account, settings: Any
) -> None:
    settings.TOKEN_CACHE_S = 3600
    for lifetime in (0.3, 3.0, 30.0):  # a busy machine may not get to ask before the brief ones are over
        expires = timezone.now() + timedelta(seconds=lifetime)
        Token.objects.filter(user__username=account.user).update(expires_at=expires)
        identity.forget()
        if client.get(ME, headers=account.headers).status_code == 200:
            break
    else:
        pytest.fail("a token that has not ended is refused")
    ended = wait_until(
        lambda: (found := client.get(ME, headers=account.headers)).status_code == 401 and found, why="it ends"
    )
    assert code_of(ended) == "token_expired"


def test_bad_credentials_are_remembered_apart_and_both_are_bounded(account: Account) -> None:
    assert identity.by_token(account.token).user_name == account.user
    for number in range(30):
        with pytest.raises(identity.CredentialRefused):
            identity.by_token(f"gnt_{number}")
    assert (len(identity._found._items), len(identity._refused._items)) == (1, 30)
    memory = identity._Memory(20)
    for number in range(100):
        memory.put((str(number), ""), identity._Known(time.monotonic() + 900, None))
    assert len(memory._items) <= 20
    assert memory.get(("99", "")) is not None
    assert memory.get(("0", "")) is None


def test_failed_credentials_are_throttled_and_good_ones_pass(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_failures", peers.Buckets(burst=3, per_second=0.01))
    answers = [client.get(ME, headers={"X-Token": "gnt_nobody"}).status_code for _ in range(5)]
    assert answers == [401, 401, 401, 429, 429]
    answer = client.get(ME, headers={"X-Token": "gnt_nobody"})
    assert int(answer["Retry-After"]) > 0
    assert code_of(answer) == "throttled"
    assert client.get(ME, headers=account.headers).status_code == 200
    assert client.get("/v1/tasks", headers={"X-Token": "x"}).json()["status"] == -2127560592


# --- Scopes -------------------------------------------------------------------------------------------


def test_each_scope_opens_its_own_things_only(client: Client, db: None) -> None:
    wanted = {
        ("GET", "/api/v1/runs"): "read",
        ("GET", "/v1/tasks?taskIds=1"): "read",
        ("POST", "/v1/tasks"): "submit",
        ("POST", "/v1/tasks/kill?taskId=1"): "submit",
        ("POST", "/api/v1/runs/1/cancel"): "submit",
        ("POST", "/api/v1/nodes/x/drain"): "operate",
        ("DELETE", "/api/v1/nodes/x"): "operate",
        ("GET", "/api/v1/tenants"): "operate",
        ("GET", "/metrics"): "operate",
    }
    for scope in identity.SCOPES:
        who = make_account("default", scopes=(scope,))
        for (method, path), needed in wanted.items():
            answer = client.generic(method, path, headers=who.headers)
            assert (answer.status_code == 403) == (scope != needed), (scope, method, path, answer.content)
            if answer.status_code == 403 and path.startswith("/api"):
                assert f"scope {needed}" in answer.json()["error"]["message"]


# --- Tenants ------------------------------------------------------------------------------------------


def test_the_header_names_one_of_the_users_tenants(client: Client, account: Account) -> None:
    Tenant.objects.create(name="lab")
    Tenant.objects.create(name="closed", active=False)
    Tenant.objects.create(name="foreign")
    tenancy.add_member("lab", account.user)
    tenancy.add_member("closed", account.user)
    assert client.get(ME, headers=account.headers).json()["tenant"] == "default"
    in_lab = client.get(ME, headers={**account.headers, "X-Tenant-Id": "lab"})
    assert in_lab.json()["tenant"] == "lab"
    assert in_lab.json()["tenants"] == ["default", "lab"]
    refusals = {
        name: client.get(ME, headers={**account.headers, "X-Tenant-Id": name})
        for name in ("foreign", "nowhere", "closed", "", " ", "default,lab")
    }
    assert {answer.status_code for answer in refusals.values()} == {403}
    assert len({answer.content for answer in refusals.values()}) == 1, (
        "an unknown tenant must look like a foreign one"
    )


def test_a_user_without_a_tenant_is_told_so(client: Client, account: Account) -> None:
    Membership.objects.all().delete()
    answer = client.get(ME, headers=account.headers)
    assert answer.status_code == 403
    assert "belongs to no tenant" in answer.json()["error"]["message"]


# --- Networks -----------------------------------------------------------------------------------------


def test_a_trusted_network_reads_and_submits_for_its_tenants_only(
    client: Client, account: Account, stranger: Account, settings: Any
) -> None:
    settings.GANTRY_TRUSTED_NETWORKS = ["192.0.2.0/24=default"]
    assert client.get(ME).status_code == 401
    inside = Client(REMOTE_ADDR="192.0.2.7")
    assert inside.get(ME).json() == {
        "user": "network",
        "tenant": "default",
        "tenants": ["default"],
        "scopes": ["read", "submit"],
        "via": "network",
    }
    for name in ("stranger", "nowhere"):
        assert inside.get(ME, headers={"X-Tenant-Id": name}).status_code == 403
    assert inside.get("/metrics").status_code == 403
    assert (
        inside.post("/api/v1/tokens", {"name": "x", "scopes": ["read"]}, "application/json").status_code
        == 403
    )
    made = inside.post("/v1/tasks", json.dumps({"taskName": "n", "commands": "true"}), "application/json")
    assert made.status_code == 200
    assert Run.objects.get().tenant_id == account.tenant_id
    settings.GANTRY_TRUSTED_PROXIES = ["192.0.2.0/24"]
    identity.forget()
    assert inside.get(ME, headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 401
