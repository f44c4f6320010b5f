"""The operators' pages: who gets in, what they show and hide, that they count no whole table."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config.http import login, peers
from tests.contracts.tasks.conftest import Stage
from tests.support.engine import submit
from tests.support.fixtures import Account
from tests.support.pruned import let_output_go
from workers.admin import shown_url
from workers.models import Deliverer, LogChunk, Node, Run, Tenant, Token
from workers.tenants import tenancy
from workers.vocabulary.states import Reason, State

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _fresh_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_attempts", peers.Buckets(burst=10, per_second=0.001))


@pytest.fixture
def root(db: None) -> Client:
    """A superuser's browser."""
    user = tenancy.create_user("root", password=PASSWORD, superuser=True)
    browser = Client()
    browser.force_login(user)
    return browser


def text(answer: Any) -> str:
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def test_strangers_and_plain_users_see_the_login_only(client: Client, account: Account) -> None:
    for path in ("/admin/", "/admin", "/admin/workers/run/", "/admin/workers/token/"):
        assert client.get(path, headers=account.headers).status_code == 302
    client.force_login(User.objects.get(username=account.user))
    assert client.get("/admin/workers/run/").status_code == 302


def test_login_works_and_is_throttled(client: Client, root: Client) -> None:
    def attempt(password: str) -> Any:
        return client.post("/admin/login/", {"username": "root", "password": password, "next": "/admin/"})

    assert attempt(PASSWORD).status_code == 302
    assert client.get("/admin/").status_code == 200
    client.logout()
    answers = [attempt("wrong").status_code for _ in range(12)]
    assert answers == [200] * 10 + [429] * 2
    refused = attempt(PASSWORD)
    assert refused.status_code == 429
    assert int(refused["Retry-After"]) > 0
    assert Client(REMOTE_ADDR="192.0.2.1").get("/admin/login/").status_code == 200


def test_other_sites_cannot_post_to_the_admin(root: Client) -> None:
    answer = root.post("/admin/workers/tenant/add/", {"name": "x"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer["Content-Type"]) == (403, "application/json")
    assert not Tenant.objects.filter(name="x").exists()


def test_a_waiting_run_is_explained(root: Client, account: Account) -> None:
    run_id = submit(account.tenant_id, "true", constraints={"rack_id": ["r9"]})
    page = text(root.get(f"/admin/workers/run/{run_id}/change/"))
    assert "no node" in page
    assert f"/api/v1/runs/{run_id}/logs?all_tenants=1&amp;tail=65536" in page


def test_a_run_shows_its_story_and_no_secret(root: Client, account: Account) -> None:
    stage = Stage()
    run_id = submit(
        account.tenant_id,
        "deploy",
        name="<script>alert(1)</script>",
        env={"PASSWORD": "canary-secret"},
        callback_url="https://user:canary-secret@hooks.example/x?token=canary-secret",
    )
    stage.end(run_id, State.FAILED, Reason.EXIT_CODE, "Command exited with status 3", 3)
    for path in (
        f"/admin/workers/run/{run_id}/change/",
        "/admin/workers/run/",
        f"/admin/workers/run/?q={run_id}",
    ):
        page = text(root.get(path))
        assert "canary-secret" not in page
        assert "<script>alert" not in page
        assert "FAILED" in page or "Failed" in page
    page = text(root.get(f"/admin/workers/run/{run_id}/change/"))
    for part in (
        "PASSWORD",
        "hooks.example",
        "Command exited with status 3",
        "node-a",
        "RUNNING &rarr; FAILED",
    ):
        assert part in page, part


def test_a_run_whose_log_was_pruned_says_so(root: Client, account: Account) -> None:
    stage = Stage()
    run_id = submit(account.tenant_id, "true")
    stage.end(run_id, State.SUCCEEDED)
    LogChunk.objects.create(run_id=run_id, attempt=1, stream=1, offset=0, data=b"gone")
    let_output_go(run_id)
    page = text(root.get(f"/admin/workers/run/{run_id}/change/"))
    assert "[... deleted on " in page
    assert "logs?all_tenants" not in page


def test_what_the_engine_writes_cannot_be_changed(root: Client, account: Account) -> None:
    stage = Stage()
    run_id = submit(account.tenant_id, "true")
    for path in (
        "/admin/workers/run/add/",
        f"/admin/workers/run/{run_id}/delete/",
        "/admin/workers/node/add/",
        f"/admin/workers/node/{stage.node.pk}/delete/",
        "/admin/workers/token/add/",
    ):
        assert root.get(path).status_code == 403, path
        assert root.post(path, {"post": "yes"}).status_code == 403, path
    assert root.post(f"/admin/workers/run/{run_id}/change/", {"state": "SUCCEEDED"}).status_code == 403
    assert Run.objects.get().state == State.PENDING


def test_lists_have_few_queries_and_count_no_whole_table(root: Client, account: Account) -> None:
    for _ in range(60):
        submit(account.tenant_id, "true")
    for query in (
        "",
        "?state__exact=PENDING",
        "?family=tasks",
        f"?tenant__id__exact={account.tenant_id}",
        "?p=2",
        "?q=x",
    ):
        with CaptureQueriesContext(connection) as queries:
            text(root.get(f"/admin/workers/run/{query}"))
        counts = [
            item["sql"] for item in queries if "COUNT(*)" in item["sql"] and "workers_run" in item["sql"]
        ]
        assert len(counts) <= 1
        assert all("LIMIT 10001" in sql for sql in counts), counts
        assert len(queries) <= 8, [item["sql"][:80] for item in queries]


def test_times_are_to_the_second_and_a_silent_node_is_told(root: Client, account: Account) -> None:
    stage = Stage()
    run_id = submit(account.tenant_id, "true")
    stage.end(run_id, State.SUCCEEDED, Reason.NONE, "", 0)
    created, page = Run.objects.get(pk=run_id).created_at, text(root.get("/admin/workers/run/"))
    assert f"{created:%Y-%m-%d %H:%M:%S}<" in page
    story = text(root.get(f"/admin/workers/run/{run_id}/change/"))
    assert re.search(r">\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} RUNNING &rarr; SUCCEEDED", story), story
    assert ">ready<" in text(root.get("/admin/workers/node/"))
    Node.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    for path in ("", f"{stage.node.pk}/change/"):
        assert "silent" in text(root.get(f"/admin/workers/node/{path}"))


def test_every_page_opens(root: Client, account: Account) -> None:
    Stage()
    for name in ("run", "node", "tenant", "token"):
        text(root.get(f"/admin/workers/{name}/"))
        text(root.get(f"/admin/workers/{name}/?q=1"))
    for model, row in (("tenant", account.tenant_id), ("token", Token.objects.get().pk)):
        text(root.get(f"/admin/workers/{model}/{row}/change/"))
    text(root.get("/admin/auth/user/"))
    page = root.get("/admin/")
    assert "auth/group" not in text(page)
    assert "frame-ancestors 'none'" in page["Content-Security-Policy"]


def test_superusers_keep_tenants(root: Client, account: Account) -> None:
    inline = {f"memberships-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS")}
    made = root.post(
        "/admin/workers/tenant/add/", {"name": "lab", "title": "", "active": "on", "policy": "{}", **inline}
    )
    assert made.status_code == 302, made.content[:2000]
    lab = Tenant.objects.get(name="lab")
    path = f"/admin/workers/tenant/{lab.pk}/change/"
    wrong = root.post(path, {"title": "", "active": "on", "policy": '{"nukes": true}', **inline})
    assert "policy has no key" in text(wrong)
    changed = root.post(path, {"name": "renamed", "title": "T", "policy": '{"volumes": true}', **inline})
    assert changed.status_code == 302
    lab.refresh_from_db()
    assert (lab.name, lab.title, lab.active, lab.policy) == ("lab", "T", False, {"volumes": True})
    assert root.get(f"/admin/workers/tenant/{lab.pk}/delete/").status_code == 403


def test_superusers_revoke_tokens_and_never_see_them(root: Client, client: Client, account: Account) -> None:
    token = Token.objects.get()
    page = text(root.get("/admin/workers/token/"))
    assert token.digest not in page
    assert account.token not in page
    assert client.get("/api/v1/me", headers=account.headers).status_code == 200
    done = root.post("/admin/workers/token/", {"action": "revoke", "_selected_action": [token.pk]})
    assert done.status_code == 302
    assert client.get("/api/v1/me", headers=account.headers).status_code == 401


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:canary@hooks.example/x?token=canary", "https://hooks.example/x?..."),
        ("http://user:canary@127.0.0.1:9/x?token=canary", "http://127.0.0.1:9/..."),
        ("canary", "(not a URL)"),
    ],
)
def test_a_receivers_address_is_shown_without_secrets(url: str, shown: str) -> None:
    """Catches an operator who cannot see where a refused callback was to go, and one who sees a password."""
    assert shown_url(url) == shown


def test_deliverers_say_how_they_are(root: Client) -> None:
    for name, detached, age in (("fine", False, 0), ("gone", True, 600), ("dead", False, 600)):
        row = Deliverer.objects.create(name=name, detached=detached)
        Deliverer.objects.filter(pk=row.pk).update(heartbeat_at=timezone.now() - timedelta(seconds=age))
    page = text(root.get("/admin/workers/deliverer/"))
    for words in ("at work", "stopped in good order", "silent"):
        assert page.count(f">{words}<") == 1, words
