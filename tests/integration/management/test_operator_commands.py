"""manage.py for operators: bootstrap at every start and at once; users, tenants, tokens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from tests.integration.conftest import Api
from tests.integration.tenants.test_idempotency import at_once
from tests.support.fixtures import Account
from tests.support.waiting import limit
from workers.models import Membership, Tenant, Token
from workers.tenants import identity, policy, tenancy
from workers.vocabulary.errors import InvalidInput

GIVEN = "gnt_" + "g" * 43


def say(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def data(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(say(*words, "--json"))
    return found


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GANTRY_BOOTSTRAP_TOKEN", "GANTRY_ADMIN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def test_bootstrap_makes_everything_once_and_shows_it_once(api: Api, db: None) -> None:
    first = data("bootstrap")
    assert (first["tenant"], first["user"]) == ("default", "admin")
    who = Account(0, "default", "admin", first["token"])
    assert api(who, "GET", "/api/v1/me")[1]["scopes"] == sorted(identity.SCOPES)
    tenant = Tenant.objects.get()
    assert tenant.trusted_with_worker_account
    user = User.objects.get()
    assert user.is_superuser
    assert user.check_password(first["password"])
    second = data("bootstrap")
    assert second == {"tenant": "default", "user": "admin", "token": None, "password": None, "warning": None}
    assert (Token.objects.count(), Membership.objects.get().is_default) == (1, True)
    text = say("bootstrap")
    assert "Token" not in text


def test_bootstrap_takes_what_is_given_and_never_shows_it(
    api: Api, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANTRY_BOOTSTRAP_TOKEN", GIVEN)
    monkeypatch.setenv("GANTRY_ADMIN_PASSWORD", "a long enough passphrase")
    for _ in range(2):
        text = say("bootstrap")
        assert GIVEN not in text
        assert "passphrase" not in text
    assert Token.objects.count() == 1
    assert api(Account(0, "", "admin", GIVEN), "GET", "/api/v1/me")[0] == 200
    assert User.objects.get().check_password("a long enough passphrase")
    # Another one at a later start is added; the first keeps working until it is revoked.
    monkeypatch.setenv("GANTRY_BOOTSTRAP_TOKEN", GIVEN[:-1] + "h")
    say("bootstrap")
    assert Token.objects.count() == 2
    tenancy.revoke_token(Token.objects.get(digest=identity.digest(GIVEN)).pk)
    monkeypatch.setenv("GANTRY_BOOTSTRAP_TOKEN", GIVEN)
    assert "stays revoked" in say("bootstrap")
    assert api(Account(0, "", "admin", GIVEN), "GET", "/api/v1/me")[0] == 401


@pytest.mark.parametrize(
    "token", ["short", "with a blank inside it", "tab\tinside-of-it", "x" * 600, "ключключключ"]
)
def test_bootstrap_refuses_an_unusable_token(db: None, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("GANTRY_BOOTSTRAP_TOKEN", token)
    with pytest.raises(CommandError, match="GANTRY_BOOTSTRAP_TOKEN must have 8 to 512") as caught:
        say("bootstrap")
    assert token not in str(caught.value)
    assert Tenant.objects.count() == 0


def test_bootstrap_warns_of_a_token_that_can_be_guessed(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_BOOTSTRAP_TOKEN", "dev-token")
    assert "guessed" in say("bootstrap")
    assert Token.objects.get().prefix == "dev"


@pytest.mark.django_db(transaction=True)
def test_eight_bootstraps_at_once_make_one_of_everything() -> None:
    def one(_: int) -> tenancy.Bootstrap:
        try:
            return tenancy.bootstrap()
        finally:
            connection.close()

    made = at_once(8, one)
    assert sum(bool(item.token) for item in made) == 1
    assert sum(bool(item.password) for item in made) == 1
    assert (Tenant.objects.count(), User.objects.count(), Token.objects.count()) == (1, 1, 1)


def test_a_tenant_a_user_and_a_token(api: Api, db: None) -> None:
    tenant = data(
        "create_tenant", "lab", "--title", "The lab", "--allow", "privileged", "--forbid", "commands"
    )
    assert tenant["policy"] == {"privileged": True, "commands": False}
    user = data("create_user", "ann", "--tenant", "lab")
    assert user["tenants"] == [{"name": "lab", "default": True}]
    token = data("create_token", "ann", "--scope", "read", "--days", "0.5", "--name", "reader")
    assert (token["scopes"], token["name"]) == (["read"], "reader")
    who = Account(0, "lab", "ann", token["token"])
    assert api(who, "GET", "/api/v1/me")[1]["tenant"] == "lab"
    assert identity.by_token(token["token"]).allowed == frozenset({"privileged"})
    assert "gnt_" in say("create_token", "ann")
    listed = data("list_tokens", "ann")["tokens"]
    assert [row["scopes"] for row in listed] == [["read", "submit"], ["read"]]
    assert token["token"] not in say("list_tokens", "ann")
    data("revoke_token", str(token["id"]))
    assert api(who, "GET", "/api/v1/me")[0] == 401
    say("create_tenant", "other")
    assert data("add_member", "other", "ann", "--default")["default"] is True
    assert "no longer in tenant lab" in say("remove_member", "lab", "ann")
    assert list(Membership.objects.values_list("tenant__name", flat=True)) == ["other"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("create_tenant", "a b"), "not usable"),
        (("create_tenant", "default"), "already"),
        (("create_user", "x", "--tenant", "none"), "no tenant none"),
        (("create_user", "x", "--password-env", "NOT_SET"), "NOT_SET"),
        (("create_token", "none"), "no user none"),
        (("create_token", "x", "--scope", "root"), "invalid choice"),
        (("revoke_token", "9"), "no token 9"),
        (("add_member", "none", "x"), "no tenant none"),
        (("remove_member", "default", "none"), "not in tenant"),
        (("list_tokens", "none"), "no user none"),
    ],
)
def test_refusals_are_one_sentence_and_change_nothing(
    account: Account, words: tuple[str, ...], says: str
) -> None:
    with pytest.raises(CommandError, match=says):
        say(*words)
    assert User.objects.count() == 1


def test_without_a_database_it_is_said_in_two_lines() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        port = bound.getsockname()[1]
    environment = {**os.environ, "DATABASE_URL": f"postgres://u:canary@127.0.0.1:{port}/g"}
    done = subprocess.run(
        [sys.executable, "manage.py", "list_tokens", "admin"],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit(180),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Connection refused" in done.stderr
    assert "make manage" in done.stderr
    assert "canary" not in done.stderr


def test_policy(account: Account) -> None:
    assert policy.allowed({}) == frozenset({"commands"})
    assert policy.allowed({"commands": False, "privileged": 1, "unknown": True}) == frozenset()
    assert policy.of(account.tenant_id).allowed == frozenset({"commands"})
    tenancy.update_tenant("default", opened={"volumes": True})
    assert policy.of(account.tenant_id).allowed == frozenset({"commands", "volumes"})
    assert policy.of(10**9) == policy.Rules()


def test_which_containers_a_tenants_execs_may_enter(account: Account) -> None:
    assert policy.exec_targets(account.tenant_id) == ["gantry.tenant=default"]
    tenancy.update_tenant("default", opened={"exec_targets": ["team=blue", "public", "all"]})
    assert policy.exec_targets(account.tenant_id) == ["team=blue", "public", "all"]
    assert policy.allowed({"exec_targets": ["all"]}) == frozenset({"commands"})
    for wrong in (True, "all", [1], [""], ["a b"], ["=x"], ["a=b\n"], ["a" * 129]):
        with pytest.raises(InvalidInput, match=r"policy\.exec_targets"):
            tenancy.update_tenant("default", opened={"exec_targets": wrong})
    tenancy.update_tenant("default", opened={"exec_targets": []})
    assert policy.exec_targets(account.tenant_id) == ["gantry.tenant=default"]


def test_who_sets_up_a_machine_may_exec_everywhere_on_it(db: None) -> None:
    tenancy.bootstrap()
    first = Tenant.objects.get(name="default")
    assert policy.exec_targets(first.pk) == ["all"]
    assert policy.exec_targets(tenancy.create_tenant("second").pk) == ["gantry.tenant=second"]
    tenancy.update_tenant("default", opened={"exec_targets": None})
    tenancy.bootstrap()
    assert policy.exec_targets(first.pk) == ["gantry.tenant=default"], "a later start opens nothing"
