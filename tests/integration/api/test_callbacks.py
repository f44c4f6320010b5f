"""/api/v1/callbacks over HTTP, the signed log URLs, X-Callback-Url, and callbackAt of a task."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.contracts.tasks.conftest import Stage
from tests.integration.conftest import Api, keys
from tests.support.engine import submit
from tests.support.fixtures import Account, make_account
from tests.support.receivers import Receivers, hang, status
from workers.api.callbacks import serializers as shapes
from workers.callbacks import signing
from workers.callbacks.rows import digest
from workers.logs import signed_urls
from workers.models import Callback, CallbackSecret, Deliverer, DisabledUrl, LogChunk, Run, Secret
from workers.vocabulary.states import State

URL = "http://client.example/hook"


@pytest.fixture(autouse=True)
def _fresh() -> None:
    signing.forget()


@pytest.fixture
def run_id(account: Account, stage: Stage) -> int:
    """A task that has started and ended, with two callbacks."""
    run_id = submit(account.tenant_id, "true", callback_url=URL)
    stage.end(run_id, State.SUCCEEDED, message="Command exited with status 0", exit_code=0)
    return run_id


def test_list_and_detail(api: Api, account: Account, run_id: int) -> None:
    code, found, _ = api(account, "GET", "/api/v1/callbacks")
    assert code == 200
    assert [(item["event"], item["state"], item["sequence"]) for item in found] == [
        ("ended", "due", 2),
        ("running", "due", 1),
    ]
    assert set(found[0]) == keys(shapes.CallbackSerializer)
    assert found[0]["owner"]["id"] == str(run_id)
    assert found[0]["owner"]["url"].endswith(f"/v1/tasks/{run_id}")
    code, one, _ = api(account, "GET", f"/api/v1/callbacks/{found[0]['id']}")
    assert (code, set(one)) == (200, keys(shapes.CallbackDetailSerializer))
    assert json.loads(one["body"])["taskId"] == run_id
    row = Callback.objects.get(pk=found[1]["id"])
    row.attempts.create(status=503, error="the receiver answered 503", ms=7)
    (attempt,) = api(account, "GET", f"/api/v1/callbacks/{row.pk}")[1]["attempts"]
    assert set(attempt) == keys(shapes.CallbackAttemptSerializer) == {"at", "status", "error", "ms"}


def test_filters_and_pages(api: Api, account: Account, stage: Stage, run_id: int) -> None:
    other = submit(account.tenant_id, "true", callback_url="https://other.example:444/x?y")
    stage.start(other)
    Callback.objects.filter(run_id=run_id, event="running").update(state="dead", next_at=None)

    def ids(query: str) -> list[tuple[str, str]]:
        code, found, _ = api(account, "GET", f"/api/v1/callbacks?{query}")
        assert code == 200, found
        return sorted((item["owner"]["id"], item["event"]) for item in found)

    mine, theirs = str(run_id), str(other)
    assert ids("state=dead") == [(mine, "running")]
    assert ids(f"url={URL}") == ids(f"owner={mine}") == [(mine, "ended"), (mine, "running")]
    assert (
        ids("receiver=other.example:444")
        == ids("receiver=https://other.example:444")
        == [(theirs, "running")]
    )
    assert ids("receiver=client.example") == ids("receiver=http://client.example") == ids(f"owner={mine}")
    assert ids("receiver=elsewhere.example") == ids("family=jobs") == []
    assert len(ids("family=tasks")) == 3
    assert ids("event=ended") == [(mine, "ended")]
    soon = (timezone.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ids(f"created_after={soon}") == []
    assert len(ids(f"created_before={soon}")) == 3
    for bad in ("state=late", "stat=dead", "created_after=then", "limit=0"):
        assert api(account, "GET", f"/api/v1/callbacks?{bad}")[0] == 400
    _, first, response = api(account, "GET", "/api/v1/callbacks?limit=2")
    link = response["Link"].partition("<")[2].partition(">")[0]
    _, rest, response = api(account, "GET", link.partition("testserver")[2])
    assert (len(first), len(rest), "Link" in response) == (2, 1, False)


def test_replay_needs_operate_and_sends_the_same_again(
    api: Api, account: Account, operator: Account, stranger: Account, run_id: int
) -> None:
    row = Callback.objects.get(run_id=run_id, event="ended")
    path = f"/api/v1/callbacks/{row.pk}/replay"
    assert api(account, "POST", path)[0] == 403
    assert api(operator, "POST", path)[0] == 409, "it is due"
    Callback.objects.filter(pk=row.pk).update(state="dead", next_at=None, attempts_made=9)
    elsewhere = make_account("stranger", scopes=("read", "submit", "operate"))
    assert api(elsewhere, "POST", path)[0] == 404
    code, found, _ = api(operator, "POST", path)
    assert (code, found["state"], found["webhook_id"]) == (200, "due", row.message_id)
    row.refresh_from_db()
    assert row.next_at is not None
    assert row.attempts_made == 9
    Callback.objects.filter(pk=row.pk).update(state="disabled", next_at=None)
    DisabledUrl.objects.create(tenant_id=account.tenant_id, url=URL, digest=digest(URL))
    code, found, _ = api(operator, "POST", path)
    assert (code, "enable it first" in found["error"]["message"]) == (409, True)
    assert api(elsewhere, "POST", f"{path}?all_tenants=1")[0] == 409


def test_replay_by_time_range(
    api: Api, account: Account, operator: Account, stage: Stage, run_id: int
) -> None:
    Callback.objects.update(state="dead", next_at=None)
    old = Callback.objects.get(event="running")
    Callback.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=5))
    now = timezone.now()
    asked = {"from": (now - timedelta(days=1)).isoformat(), "to": (now + timedelta(days=1)).isoformat()}
    path = "/api/v1/callbacks/replay"
    assert api(account, "POST", path, asked)[0] == 403
    elsewhere = make_account("stranger", scopes=("operate",))
    assert api(elsewhere, "POST", path, asked)[1] == {"replayed": 0, "more": False}
    assert api(operator, "POST", path, {**asked, "url": "http://other/"})[1]["replayed"] == 0
    assert api(operator, "POST", path, {**asked, "family": "jobs"})[1]["replayed"] == 0
    assert api(operator, "POST", path, {**asked, "state": "delivered"})[1]["replayed"] == 0
    assert api(operator, "POST", path, asked)[1] == {"replayed": 1, "more": False}
    assert Callback.objects.get(state="due").event == "ended"
    assert Callback.objects.get(state="dead").pk == old.pk
    wide = {**asked, "from": (now - timedelta(days=9)).isoformat()}
    assert api(elsewhere, "POST", f"{path}?all_tenants=1", wide)[1]["replayed"] == 1
    for bad in (
        {},
        {"from": "x", "to": "y"},
        {"from": asked["to"], "to": asked["from"]},
        {**asked, "state": "due"},
    ):
        assert api(operator, "POST", path, bad)[0] == 400


def test_disabled_urls(api: Api, account: Account, stranger: Account) -> None:
    row = DisabledUrl.objects.create(tenant_id=account.tenant_id, url=URL, digest=digest(URL))
    code, found, _ = api(account, "GET", "/api/v1/callbacks/disabled")
    assert (code, [item["url"] for item in found]) == (200, [URL])
    assert set(found[0]) == keys(shapes.DisabledUrlSerializer)
    path = f"/api/v1/callbacks/disabled/{row.pk}/enable"
    assert api(stranger, "POST", path)[0] == 404
    assert api(stranger, "GET", "/api/v1/callbacks/disabled")[1] == []
    assert api(account, "POST", path)[0] == 200
    assert not DisabledUrl.objects.exists()


def test_secrets_rotate_two_at_a_time(api: Api, account: Account, stranger: Account) -> None:
    path = "/api/v1/callbacks/secrets"
    (unknown,) = signing.valid(account.tenant_id)
    code, found, _ = api(account, "GET", path)
    assert (code, [item["shown"] for item in found]) == (200, [False])
    code, first, _ = api(account, "POST", path)
    assert (code, first["secret"].startswith("whsec_"), first["shown"]) == (201, True, True)
    assert set(first) == keys(shapes.CallbackSecretWithValueSerializer)
    assert signing.valid(account.tenant_id) == (first["secret"],), "nobody knew the first one: it is gone"
    assert unknown != first["secret"]
    code, second, _ = api(account, "POST", path, None, Idempotency_Key="k")
    assert signing.valid(account.tenant_id) == (second["secret"], first["secret"])
    assert api(account, "POST", path, None, Idempotency_Key="k")[0] == 409
    code, refusal, _ = api(account, "POST", path)
    assert (code, "revoke the older one" in refusal["error"]["message"]) == (409, True)
    assert api(stranger, "DELETE", f"{path}/{first['id']}")[0] == 404
    assert api(account, "DELETE", f"{path}/{first['id']}")[0] == 200
    assert signing.valid(account.tenant_id) == (second["secret"],)
    listed = api(account, "GET", path)[1]
    assert "whsec_" not in json.dumps(listed)
    assert [item["revoked_at"] is None for item in listed] == [True, False, False]
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(t::text, ' ') FROM workers_idempotencykey t")
        assert "whsec_" not in cursor.fetchone()[0]
    assert Secret.objects.count() == 1, "values of revoked ones are deleted"
    assert CallbackSecret.objects.count() == 3


def test_a_test_ping_tells_what_came_of_it(api: Api, account: Account, settings: Any) -> None:
    settings.GANTRY_CALLBACK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    settings.GANTRY_CALLBACK_TIMEOUT_S = 60.0
    secret = api(account, "POST", "/api/v1/callbacks/secrets")[1]["secret"]
    with Receivers() as them:
        them.answers |= {"/error": status(500), "/hang": hang(), "/gone": status(410)}

        def ping(path: str) -> dict[str, Any]:
            code, found, _ = api(account, "POST", "/api/v1/callbacks/test", {"url": them.url(path)})
            assert (code, set(found)) == (200, keys(shapes.CallbackTestedSerializer))
            return dict(found)

        good = ping("/good")
        assert (good["delivered"], good["status"], good["error"]) == (True, 200, None)
        (delivery,) = them.at("/good")
        assert delivery.id == good["webhook_id"]
        assert delivery.verified(secret)["event"] == "test"
        assert (ping("/error")["delivered"], ping("/error")["status"]) == (False, 500)
        assert ping("/gone")["status"] == 410
        settings.GANTRY_CALLBACK_TIMEOUT_S = 0.5
        assert (ping("/hang")["status"], "longer than" in ping("/hang")["error"]) == (None, True)
        settings.GANTRY_CALLBACK_ALLOW_NETWORKS = []
        seen = len(them.got)
        refused = ping("/good")
        assert (refused["delivered"], "loopback" in refused["error"]) == (False, True)
        assert len(them.got) == seen, "nothing was sent"
    assert not DisabledUrl.objects.exists()
    assert not Callback.objects.exists()
    for bad in ("ftp://x.example/", "x", "", "http://"):
        assert api(account, "POST", "/api/v1/callbacks/test", {"url": bad})[0] == 400


# --- X-Callback-Url ----------------------------------------------------------------------------------


def test_the_header_asks_for_callbacks_of_a_task(api: Api, account: Account) -> None:
    task = {"taskName": "a", "commands": "true"}
    _, found, _ = api(account, "POST", "/v1/tasks", task, X_Callback_Url=URL)
    assert Run.objects.get(pk=found["data"]["taskId"]).callback_url == URL
    _, found, _ = api(
        account, "POST", "/v1/tasks", {**task, "callbackUrl": "http://body.example/"}, X_Callback_Url=URL
    )
    assert Run.objects.get(pk=found["data"]["taskId"]).callback_url == "http://body.example/"
    before = Run.objects.count()
    for bad in ("ftp://x.example/", "nowhere", "http://", "http://a b/", "https://x.example/" + "a" * 3000):
        code, found, _ = api(account, "POST", "/v1/tasks", task, X_Callback_Url=bad)
        assert (code, "X-Callback-Url" in found["message"]) == (400, True), bad
    assert Run.objects.count() == before
    for denied in (
        "http://127.0.0.1/",
        "http://169.254.169.254/",
        "http://localhost:8081/",
        "http://no.such.example/",
    ):
        assert api(account, "POST", "/v1/tasks", task, X_Callback_Url=denied)[0] == 200, (
            "no look-up at submission"
        )


def test_the_header_on_a_retry(api: Api, account: Account, run_id: int) -> None:
    for header, expected in (({}, URL), ({"X_Callback_Url": "https://new.example/"}, "https://new.example/")):
        code, found, _ = api(account, "POST", f"/api/v1/runs/{run_id}/retry", None, **header)
        assert (code, Run.objects.get(pk=found["id"]).callback_url) == (201, expected)
    assert api(account, "POST", f"/api/v1/runs/{run_id}/retry", None, X_Callback_Url="ftp://x/")[0] == 400


# --- Signed log URLs ---------------------------------------------------------------------------------


def get(url: str) -> Any:
    """Without any credentials."""
    parts = urlsplit(url)
    return Client().get(f"{parts.path}?{parts.query}")


def test_signed_log_urls_open_one_stream_of_one_task(account: Account, run_id: int, settings: Any) -> None:
    for stream, data in ((1, b"out\n"), (2, b"err\n")):
        LogChunk.objects.create(run_id=run_id, attempt=1, stream=stream, offset=0, data=data)
    body = json.loads(Callback.objects.get(run_id=run_id, event="ended").body)
    out, err = body["logs"]
    for url, text in ((out, b"out\n"), (err, b"err\n")):
        answer = get(url)
        assert (answer.status_code, answer.getvalue()) == (200, text)
    assert get(f"{out}&tail=2").getvalue() == b"t\n"
    other = submit(account.tenant_id, "true")
    expired = signed_urls.log_url(f"/v1/tasks/{run_id}/logs", "stdout", now=0.0)
    for bad in (
        out.replace("stream=stdout", "stream=stderr"),
        out.replace(f"/{run_id}/", f"/{other}/"),
        out.replace("&expires=", "&expires=9"),
        out.replace("stream=stdout&", ""),
        out[:-1] + ("A" if out[-1] != "A" else "B"),
        out.partition("&signature=")[0],
        expired,
    ):
        answer = get(bad)
        assert answer.status_code == 401, bad
        assert set(json.loads(answer.getvalue())) == {"status", "message"}, "the family's own envelope"
    assert json.loads(get(expired).getvalue())["status"] == -2127552015
    query = out.partition("?")[2]
    for path in (f"/v1/tasks/{run_id}", f"/api/v1/runs/{run_id}/logs", f"/v1/tasks/{run_id}/explain"):
        assert Client().get(f"{path}?{query}").status_code == 401, path
    assert Client().post(f"/v1/tasks/kill?taskId={run_id}&{query}").status_code == 401
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another" * 10
    assert get(out).status_code == 200, "a key may be rotated"
    settings.SECRET_KEY_FALLBACKS = []
    assert get(out).status_code == 401


# --- What others see ---------------------------------------------------------------------------------


def test_callback_at_is_the_latest_acceptance(api: Api, account: Account, run_id: int) -> None:
    def shown() -> Any:
        return api(account, "GET", f"/v1/tasks/{run_id}")[1]["data"].get("callbackAt")

    assert shown() is None
    moment = timezone.now().replace(year=2016, month=12, day=8, hour=16, minute=3, second=8)
    Callback.objects.filter(event="running").update(state="delivered", next_at=None, delivered_at=moment)
    assert shown() == "Dec 8, 2016 4:03:08 PM"
    Callback.objects.filter(event="ended").update(
        state="delivered", next_at=None, delivered_at=moment + timedelta(minutes=1)
    )
    assert shown() == "Dec 8, 2016 4:04:08 PM"


def test_readiness_and_explain_say_that_nobody_delivers(api: Api, account: Account, run_id: int) -> None:
    def whenever(text: str) -> str:
        return re.sub(r"for \d+ s", "for a while", text)

    def warned() -> list[str]:
        told: list[str] = Client().get("/readyz").json()["warnings"]
        why = api(account, "GET", f"/api/v1/runs/{run_id}/explain")[1]["reasons"]
        explained = [item["message"] for item in why if item["code"] == "callbacks"]
        found = [text for text in told if "callbacks are due" in text]
        assert [whenever(text) for text in found] == [whenever(text) for text in explained]
        return found

    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_callback SET next_at = now() - interval '1 minute' WHERE event = 'running'"
        )
    assert "none has ever reported" in warned()[0]
    Deliverer.objects.create(name="c1")
    assert warned() == []
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_deliverer SET heartbeat_at = now() - interval '400 seconds'")
    assert "none has been heard for 4" in warned()[0]
    Callback.objects.update(state="delivered", next_at=None)
    assert warned() == []


def test_metrics_of_callbacks(operator: Account, run_id: int) -> None:
    Callback.objects.filter(event="ended").update(state="dead", next_at=None)
    Deliverer.objects.create(name="c1", delivered=5, failed=3, dead=1)
    Deliverer.objects.create(name="c2", delivered=2)
    text = Client().get("/metrics", headers=operator.headers).content.decode()
    for line in (
        'gantry_callbacks{state="due"} 1.0',
        'gantry_callbacks{state="dead"} 1.0',
        'gantry_callback_deliveries_total{result="delivered"} 7.0',
        'gantry_callback_deliveries_total{result="failed"} 3.0',
        'gantry_callback_deliveries_total{result="dead"} 1.0',
        "gantry_oldest_due_callback_seconds ",
        "gantry_deliverer_heartbeat_age_seconds ",
    ):
        assert line in text, line


def test_admin_shows_no_secret_of_a_url_and_replays(
    admin_client: Client, account: Account, stage: Stage
) -> None:
    run_id = submit(
        account.tenant_id, "true", callback_url="https://me:hunter22@client.example/hook?key=hunter33"
    )
    stage.start(run_id)
    row = Callback.objects.get()
    Callback.objects.update(state="dead", next_at=None)
    row.attempts.create(status=500, error="the receiver answered 500", ms=3)
    DisabledUrl.objects.create(tenant_id=account.tenant_id, url=row.url, digest="0" * 64)
    for path in ("callback/", f"callback/{row.pk}/change/", "disabledurl/", "deliverer/", "callback/?q=1"):
        answer = admin_client.get(f"/admin/workers/{path}")
        assert answer.status_code == 200, path
        assert b"hunter" not in answer.content
    assert (
        b"the receiver answered 500" in admin_client.get(f"/admin/workers/callback/{row.pk}/change/").content
    )
    chosen = {"action": "replay", "_selected_action": [row.pk]}
    assert admin_client.post("/admin/workers/callback/", chosen).status_code == 302
    row.refresh_from_db()
    assert row.state == "due"
    (disabled,) = DisabledUrl.objects.all()
    chosen = {"action": "enable", "_selected_action": [disabled.pk]}
    assert admin_client.post("/admin/workers/disabledurl/", chosen).status_code == 302
    assert not DisabledUrl.objects.exists()


def test_callbacks_go_with_their_runs(run_id: int) -> None:
    from workers.upkeep import retention

    Callback.objects.all()[0].attempts.create(status=200, ms=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE workers_run SET finished_at = now() - interval '91 days'")
    assert retention.prune_once(100)["runs"] == 1
    assert not Callback.objects.exists()
