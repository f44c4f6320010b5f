"""/api/v1 for operators and users: tenants, members, users, tokens."""

from __future__ import annotations

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.integration.conftest import Api, keys
from tests.support.fixtures import Account, make_account
from workers.api.tenancy import serializers
from workers.models import Membership, Tenant, Token
from workers.tenants import tenancy

pytestmark = pytest.mark.invariant


def test_operators_make_tenants_users_and_members(api: Api, operator: Account) -> None:
    status, tenant, _ = api(
        operator, "POST", "/api/v1/tenants", {"name": "lab", "policy": {"privileged": True}}
    )
    assert status == 201
    assert set(tenant) == keys(serializers.TenantSerializer)
    assert (tenant["name"], tenant["active"], tenant["policy"]) == ("lab", True, {"privileged": True})
    assert tenant["trusted_with_worker_account"] is False
    status, user, _ = api(operator, "POST", "/api/v1/users", {"name": "ann", "tenants": ["lab", "default"]})
    assert status == 201
    assert set(user) == keys(serializers.UserSerializer)
    assert user["tenants"] == [{"name": "lab", "default": True}, {"name": "default", "default": False}]
    status, token, _ = api(
        operator, "POST", "/api/v1/tokens", {"name": "ann's", "scopes": ["read"], "user": "ann"}
    )
    assert status == 201
    assert set(token) == keys(serializers.TokenWithValueSerializer)
    ann = Account(0, "lab", "ann", token["token"])
    assert api(ann, "GET", "/api/v1/me")[1]["tenants"] == ["lab", "default"]
    assert api(operator, "PUT", "/api/v1/tenants/default/members/ann", {"default": True})[1] == {
        "user": "ann",
        "default": True,
    }
    assert api(ann, "GET", "/api/v1/me")[1]["tenant"] == "default"
    members = api(operator, "GET", "/api/v1/tenants/lab/members")[1]
    assert members == [{"user": "ann", "default": False}]
    assert api(operator, "DELETE", "/api/v1/tenants/lab/members/ann")[0] == 200
    assert api(operator, "DELETE", "/api/v1/tenants/lab/members/ann")[0] == 404
    assert api(ann, "GET", "/api/v1/me", X_Tenant_Id="lab")[0] == 403
    status, changed, _ = api(operator, "PATCH", "/api/v1/tenants/lab", {"active": False, "title": None})
    assert (status, changed["active"], changed["title"]) == (200, False, "")
    assert api(operator, "PATCH", "/api/v1/users/ann", {"active": False})[1]["active"] is False
    assert api(ann, "GET", "/api/v1/me")[0] == 401


def test_a_change_touches_only_the_keys_that_it_names(api: Api, operator: Account) -> None:
    """What an operator opened yesterday is not closed by what is opened today."""
    path = "/api/v1/tenants/lab"
    api(operator, "POST", "/api/v1/tenants", {"name": "lab"})
    for change in (
        {"policy": {"exec_targets": ["all"]}, "limits": {"waiting_runs": 5}},
        {"policy": {"host_ports": True}, "limits": {"running_runs": 2}},
        {"retention": {"runs_d": 30, "families": {"tasks": {"logs_d": 3}}}},
        {"retention": {"logs_d": 7, "families": {"tasks": {"runs_d": 9}, "jobs": {"runs_d": 1}}}},
    ):
        assert api(operator, "PATCH", path, change)[0] == 200
    found = api(operator, "GET", path)[1]
    assert found["policy"] == {"exec_targets": ["all"], "host_ports": True}
    assert found["limits"] == {"waiting_runs": 5, "running_runs": 2}
    families = {"tasks": {"logs_d": 3, "runs_d": 9}, "jobs": {"runs_d": 1}}
    assert found["retention"] == {"runs_d": 30, "logs_d": 7, "families": families}
    back = {
        "policy": {"exec_targets": None},
        "limits": {"waiting_runs": None},
        "retention": {"families": {"tasks": None, "jobs": {"logs_d": None}}},
    }
    found = api(operator, "PATCH", path, back)[1]
    assert (found["policy"], found["limits"]) == ({"host_ports": True}, {"running_runs": 2})
    assert found["retention"] == {"runs_d": 30, "logs_d": 7, "families": {"jobs": {"runs_d": 1}}}
    assert api(operator, "PATCH", path, {"policy": {"volumes": 1, "host_ports": None}})[0] == 400
    assert api(operator, "GET", path)[1]["policy"] == {"host_ports": True}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/api/v1/tenants", {}, 400, "name"),
        ("POST", "/api/v1/tenants", {"name": ""}, 400, "name"),
        ("POST", "/api/v1/tenants", {"name": "a b"}, 400, "name"),
        ("POST", "/api/v1/tenants", {"name": "a+b"}, 400, "name"),
        ("POST", "/api/v1/tenants", {"name": "default"}, 409, "name"),
        ("POST", "/api/v1/tenants", {"name": "x", "policy": {"nukes": True}}, 400, "policy"),
        ("PATCH", "/api/v1/tenants/none", {"active": True}, 404, None),
        ("POST", "/api/v1/users", {"name": "a b"}, 400, "name"),
        ("POST", "/api/v1/users", {"name": "x", "password": "short"}, 400, "password"),
        ("POST", "/api/v1/users", {"name": "x", "tenants": ["none"]}, 404, None),
        ("POST", "/api/v1/users", {"name": "x", "superuser": True}, 403, None),
        ("PUT", "/api/v1/tenants/default/members/none", {}, 404, None),
        ("PUT", "/api/v1/tenants/none/members/x", {}, 404, None),
        ("POST", "/api/v1/tokens", {"name": "x"}, 400, "scopes"),
        ("POST", "/api/v1/tokens", {"name": "x", "scopes": ["root"]}, 400, "scopes.0"),
        ("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "expires_in_s": 0}, 400, "expires_in_s"),
        ("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "user": "none"}, 404, None),
    ],
)
def test_refused_changes_change_nothing(
    api: Api, operator: Account, method: str, path: str, body: object, status: int, field: str | None
) -> None:
    def rows() -> list[int]:
        from django.contrib.auth.models import User

        return [
            Tenant.objects.count(),
            User.objects.count(),
            Membership.objects.count(),
            Token.objects.count(),
        ]

    before = rows()
    found, answer, _ = api(operator, method, path, body)
    assert (found, answer["error"].get("field")) == (status, field), answer
    assert rows() == before


def test_everything_of_operators_is_closed_to_others(api: Api, account: Account) -> None:
    for method, path in (
        ("GET", "tenants"), ("POST", "tenants"), ("GET", "tenants/default"), ("PATCH", "tenants/default"),
        ("GET", "tenants/default/members"), ("PUT", f"tenants/default/members/{account.user}"),
        ("DELETE", f"tenants/default/members/{account.user}"), ("GET", "users"), ("POST", "users"),
        ("GET", f"users/{account.user}"), ("PATCH", f"users/{account.user}"),
        ("GET", f"tokens?user={account.user}x"),
    ):  # fmt: skip
        assert api(account, method, f"/api/v1/{path}", {} if method != "GET" else None)[0] == 403, (
            method,
            path,
        )
    assert Membership.objects.count() == 1


def test_lists_of_operators_are_paged_with_a_fixed_number_of_queries(
    api: Api, operator: Account, remembered: None
) -> None:
    for number in range(4):
        tenancy.create_tenant(f"t{number}")
        tenancy.create_user(f"u{number}")
        tenancy.add_member(f"t{number}", f"u{number}")
    api(operator, "GET", "/api/v1/me")
    for path, queries_wanted in (("tenants", 1), ("users", 2), ("nodes", 1)):
        with CaptureQueriesContext(connection) as queries:
            _, everything, _ = api(operator, "GET", f"/api/v1/{path}")
        assert len(queries) == queries_wanted, path
        names = [row["name"] for row in everything]
        assert names == sorted(names)
        if len(names) > 2:
            _, first, response = api(operator, "GET", f"/api/v1/{path}?limit=2")
            following = response["Link"].split(">")[0].removeprefix("<http://testserver")
            assert [row["name"] for row in first + api(operator, "GET", following)[1]] == names[:4]


# --- Tokens ---


def test_users_keep_their_own_tokens_within_their_own_rights(
    api: Api, account: Account, stranger: Account
) -> None:
    status, made, _ = api(
        account, "POST", "/api/v1/tokens", {"name": "child", "scopes": ["read"], "expires_in_s": 60}
    )
    assert status == 201
    assert made["token"].startswith("gnt_")
    assert len(made["token"]) >= 4 + 32
    assert made["prefix"] == made["token"][:8]
    assert made["expires_at"] is not None
    child = Account(account.tenant_id, "default", account.user, made["token"])
    assert api(child, "GET", "/api/v1/runs")[0] == 200
    assert api(child, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"]})[0] == 403
    assert api(account, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["operate"]})[0] == 403
    assert (
        api(account, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "user": stranger.user})[0]
        == 403
    )
    listed = api(account, "GET", "/api/v1/tokens")[1]
    assert [row["name"] for row in listed] == ["child", "test"]
    assert all(set(row) == keys(serializers.TokenSerializer) for row in listed)
    assert made["token"] not in json.dumps(listed)
    theirs = Token.objects.get(user__username=stranger.user)
    assert api(account, "DELETE", f"/api/v1/tokens/{theirs.pk}")[0] == 404
    status, ended, _ = api(account, "DELETE", f"/api/v1/tokens/{made['id']}")
    assert status == 200
    assert ended["revoked_at"] is not None
    assert api(child, "GET", "/api/v1/runs")[0] == 401
    again = api(account, "DELETE", f"/api/v1/tokens/{made['id']}")
    assert (again[0], again[1]["revoked_at"]) == (200, ended["revoked_at"])
    theirs.refresh_from_db()
    assert theirs.revoked_at is None


def test_the_value_of_a_token_is_stored_nowhere(api: Api, account: Account) -> None:
    value = api(account, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"]})[1]["token"]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE %s', [f"%{value[8:]}%"])
            assert cursor.fetchone() == (0,), table


def test_a_token_cannot_mint_one_that_outlives_it(api: Api, account: Account) -> None:
    short = api(
        account, "POST", "/api/v1/tokens", {"name": "s", "scopes": ["read", "submit"], "expires_in_s": 100}
    )[1]
    child = Account(account.tenant_id, "default", account.user, short["token"])
    for wanted in ({}, {"expires_in_s": 10_000}):
        made = api(child, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], **wanted})[1]
        assert made["expires_at"] <= short["expires_at"]


def test_superusers_tokens_need_a_superuser(api: Api, operator: Account) -> None:
    tenancy.create_user("root", superuser=True)
    tenancy.add_member("default", "root")
    row, value = tenancy.create_token(
        tenancy.find_user("root"), name="r", scopes=["read", "operate", "submit"]
    )
    assert (
        api(operator, "POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "user": "root"})[0] == 403
    )
    assert api(operator, "DELETE", f"/api/v1/tokens/{row.pk}")[0] == 403
    assert api(operator, "PATCH", "/api/v1/users/root", {"active": False})[0] == 403
    root = Account(0, "default", "root", value)
    assert api(root, "POST", "/api/v1/users", {"name": "root2", "superuser": True})[0] == 201


def test_an_operator_lists_and_revokes_anothers_tokens(
    api: Api, operator: Account, stranger: Account
) -> None:
    (theirs,) = api(operator, "GET", f"/api/v1/tokens?user={stranger.user}")[1]
    assert api(operator, "DELETE", f"/api/v1/tokens/{theirs['id']}")[0] == 200
    assert api(stranger, "GET", "/api/v1/me")[0] == 401


def test_make_account_has_no_hidden_rights(api: Api, db: None) -> None:
    """The fixture that every refusal here rests on."""
    who = make_account("default", scopes=("read",))
    assert api(who, "GET", "/api/v1/me")[1]["scopes"] == ["read"]
