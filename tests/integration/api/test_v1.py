"""/api/v1/runs and nodes: shapes field by field, filters, pages, refusals, and query counts."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.contracts.tasks.conftest import Stage
from tests.integration.conftest import Api, keys
from tests.support.engine import submit
from tests.support.fixtures import Account, make_account
from tests.support.pruned import let_output_go
from workers.api.nodes.serializers import NodeSerializer
from workers.api.runs import serializers
from workers.models import LogChunk, Node, Run, Token
from workers.vocabulary.states import Reason, State

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def test_a_run_field_by_field(api: Api, account: Account, stage: Stage) -> None:
    run_id = submit(account.tenant_id, "exit 3", name="three", priority=1)
    stage.end(run_id, State.FAILED, Reason.EXIT_CODE, "Command exited with status 3", 3)
    status, body, response = api(account, "GET", f"/api/v1/runs/{run_id}")
    assert status == 200
    assert response["Content-Type"] == "application/json"
    assert set(body) == keys(serializers.RunDetailSerializer)
    times = {name: body.pop(name) for name in ("created_at", "started_at", "finished_at")}
    for value in times.values():
        assert re.fullmatch(STAMP, value), value
    attempts, events = body.pop("attempts"), body.pop("events")
    assert body == {
        "id": run_id,
        "family": "tasks",
        "kind": "process",
        "name": "three",
        "tenant": "default",
        "owner": {"id": str(run_id), "url": f"http://testserver/v1/tasks/{run_id}"},
        "state": "FAILED",
        "reason": "exit_code",
        "message": "Command exited with status 3",
        "priority": 1,
        "node": "node-a",
        "attempt": 1,
        "exit_code": 3,
        "cancel_requested_at": None,
        "log_pruned": False,
        "url": f"http://testserver/api/v1/runs/{run_id}",
    }
    assert set(attempts[0]) == keys(serializers.AttemptSerializer)
    assert [(item["number"], item["node"], item["state"], item["exit_code"]) for item in attempts] == [
        (1, "node-a", "FAILED", 3)
    ]
    assert set(events[0]) == keys(serializers.RunEventSerializer)
    assert [(item["from"], item["to"]) for item in events][-1] == ("RUNNING", "FAILED")
    status, listed, _ = api(account, "GET", "/api/v1/runs")
    assert set(listed[0]) == keys(serializers.RunSerializer)
    assert {name: listed[0][name] for name in body} == body


def test_a_run_whose_log_was_pruned_shows_it(api: Api, account: Account, stage: Stage) -> None:
    run_id = submit(account.tenant_id, "true")
    stage.end(run_id, State.SUCCEEDED)
    LogChunk.objects.create(run_id=run_id, attempt=1, stream=1, offset=0, data=b"gone")
    let_output_go(run_id)
    body = api(account, "GET", f"/api/v1/runs/{run_id}")[1]
    assert (body["log_pruned"], body["attempts"][0]["log_pruned"]) == (True, True)
    assert api(account, "GET", "/api/v1/runs")[1][0]["log_pruned"] is True


def test_owner_url_leads_to_the_familys_own_view(api: Api, account: Account) -> None:
    run_id = submit(account.tenant_id, "true")
    owner = api(account, "GET", f"/api/v1/runs/{run_id}")[1]["owner"]
    status, body, _ = api(account, "GET", owner["url"].removeprefix("http://testserver"))
    assert (status, body["data"]["taskId"]) == (200, run_id)


def test_a_run_of_an_unknown_family_is_still_shown(api: Api, account: Account) -> None:
    run_id = submit(account.tenant_id, "true", owner_id="7")
    Run.objects.filter(pk=run_id).update(family="gone")
    assert api(account, "GET", f"/api/v1/runs/{run_id}")[1]["owner"] == {"id": "7", "url": None}


def test_filters(api: Api, account: Account, stage: Stage) -> None:
    first = submit(account.tenant_id, "true", name="alpha")
    second = submit(account.tenant_id, "true", name="beta", owner_id="job-9")
    third = submit(account.tenant_id, "true", name="alpha")
    stage.end(first, State.SUCCEEDED, exit_code=0)
    stage.start(second)
    created = {row.pk: row.created_at.isoformat() for row in Run.objects.all()}

    def ids(query: str) -> list[int]:
        status, body, _ = api(account, "GET", f"/api/v1/runs?{query}")
        assert status == 200, body
        return [row["id"] for row in body]

    assert ids("") == [third, second, first]
    assert ids("state=PENDING") == [third]
    assert ids("state=running") == [second]
    assert ids("name=alpha") == [third, first]
    assert ids("name=alph") == []
    assert ids("node=node-a") == [second, first]
    assert ids("node=other") == []
    assert ids("family=tasks&kind=process") == [third, second, first]
    assert ids("family=jobs") == []
    assert ids("owner=job-9") == [second]
    assert ids(f"owner={first}") == [first]
    assert ids(f"owner={second}") == []
    after = created[second].replace("+00:00", "Z")
    assert ids(f"created_after={after}") == [third, second]
    assert ids(f"created_before={after}") == [first]
    assert ids(f"created_after={created[second]}") == [third, second], "an unescaped + must be understood"
    assert ids("created_after=2020-01-01&created_before=2099-01-01T00:00") == [third, second, first]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=WAITING", "state"),
        ("stat=RUNNING", "stat"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=-1", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("cursor=abc", "cursor"),
        ("cursor=" + "9" * 30, "cursor"),
        ("created_after=yesterday", "created_after"),
        ("created_after=0001-01-01T00:00:00%2B10:00", "created_after"),
        ("all_tenants=maybe", "all_tenants"),
    ],
)
def test_wrong_parameters_are_named(api: Api, account: Account, query: str, field: str) -> None:
    status, body, _ = api(account, "GET", f"/api/v1/runs?{query}")
    assert status == 400
    assert body["error"]["field"] == field


def test_pages_follow_the_link_and_meet_every_run_once(api: Api, account: Account) -> None:
    wanted = [submit(account.tenant_id, "true", name="page") for _ in range(5)][::-1]
    submit(account.tenant_id, "true", name="other")
    found: list[int] = []
    path: str | None = "/api/v1/runs?limit=2&name=page"
    pages = 0
    while path:
        status, body, response = api(account, "GET", path)
        assert status == 200
        assert len(body) <= 2
        found += [row["id"] for row in body]
        pages += 1
        link = response.headers.get("Link")
        path = None if link is None else link.split(">")[0].removeprefix("<http://testserver")
        assert link is None or link.endswith('>; rel="next"')
    assert found == wanted
    assert pages == 3


def test_a_list_has_100_by_default_and_a_fixed_number_of_queries(
    api: Api, account: Account, remembered: None
) -> None:
    for _ in range(101):
        submit(account.tenant_id, "true")
    api(account, "GET", "/api/v1/runs?limit=1")
    counts = []
    for limit in ("", "?limit=1", "?limit=1000"):
        with CaptureQueriesContext(connection) as queries:
            _, body, response = api(account, "GET", f"/api/v1/runs{limit}")
        counts.append(len(queries))
        assert len(body) == {"": 100, "?limit=1": 1, "?limit=1000": 101}[limit]
        assert ("Link" in response.headers) == (limit != "?limit=1000")
    assert counts == [1, 1, 1]


def test_a_detail_has_three_queries(api: Api, account: Account, stage: Stage, remembered: None) -> None:
    run_id = submit(account.tenant_id, "true")
    stage.end(run_id, State.SUCCEEDED)
    api(account, "GET", "/api/v1/me")
    with CaptureQueriesContext(connection) as queries:
        api(account, "GET", f"/api/v1/runs/{run_id}")
    assert len(queries) == 3


@pytest.mark.parametrize("run_id", [0, 999_999_999, 2**63, 10**30])
@pytest.mark.parametrize(
    ("method", "rest"),
    [("GET", ""), ("GET", "/logs"), ("GET", "/explain"), ("POST", "/cancel"), ("POST", "/retry")],
)
def test_unknown_runs_are_404(api: Api, account: Account, method: str, rest: str, run_id: int) -> None:
    status, body, _ = api(account, method, f"/api/v1/runs/{run_id}{rest}")
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_cancel_waiting_running_and_ended(api: Api, account: Account, stage: Stage) -> None:
    waiting, running, ended = (submit(account.tenant_id, "sleep 9") for _ in range(3))
    stage.start(running)
    stage.end(ended, State.SUCCEEDED)
    for run_id, state, accepted in (
        (waiting, "CANCELLED", True),
        (running, "RUNNING", True),
        (ended, "SUCCEEDED", False),
    ):
        status, body, _ = api(account, "POST", f"/api/v1/runs/{run_id}/cancel")
        assert status == 200
        assert set(body) == keys(serializers.CancelledSerializer)
        assert (body["id"], body["state"], body["accepted"], body["already_final"]) == (
            run_id,
            state,
            accepted,
            not accepted,
        )
    assert api(account, "GET", f"/api/v1/runs/{running}")[1]["cancel_requested_at"] is not None


def test_retry_makes_a_new_run_and_refuses_an_open_one(api: Api, account: Account, stage: Stage) -> None:
    run_id = submit(account.tenant_id, "true", name="again")
    status, body, _ = api(account, "POST", f"/api/v1/runs/{run_id}/retry")
    assert (status, body["error"]["code"]) == (409, "conflict")
    assert Run.objects.count() == 1
    stage.end(run_id, State.FAILED, Reason.EXIT_CODE)
    status, body, response = api(account, "POST", f"/api/v1/runs/{run_id}/retry")
    assert status == 201
    assert (body["name"], body["state"], body["attempt"]) == ("again", "PENDING", 0)
    assert body["id"] != run_id
    assert response["Location"] == body["url"]
    assert Run.objects.get(pk=body["id"]).retry_of_id == run_id


def test_explain(api: Api, account: Account) -> None:
    run_id = submit(account.tenant_id, "true")
    status, body, _ = api(account, "GET", f"/api/v1/runs/{run_id}/explain")
    assert status == 200
    assert set(body) == keys(serializers.ExplanationSerializer)
    assert set(body["reasons"][0]) == keys(serializers.ExplanationReasonSerializer)
    assert body["state"] == "PENDING"
    assert "no node" in body["reasons"][0]["message"]


def test_logs_of_a_waiting_run_are_empty(api: Api, account: Account) -> None:
    run_id = submit(account.tenant_id, "true")
    status, body, response = api(account, "GET", f"/api/v1/runs/{run_id}/logs?stream=stdout")
    assert (status, body) == (200, b"")
    assert response["Content-Type"].startswith("text/plain")


def test_operators_see_and_cancel_every_tenants_runs_when_they_ask(
    api: Api, account: Account, stranger: Account, operator: Account
) -> None:
    theirs, ours = submit(stranger.tenant_id, "true"), submit(account.tenant_id, "true")
    assert [row["id"] for row in api(operator, "GET", "/api/v1/runs")[1]] == [ours]
    everything = api(operator, "GET", "/api/v1/runs?all_tenants=1")[1]
    assert [(row["id"], row["tenant"]) for row in everything] == [(ours, "default"), (theirs, "stranger")]
    assert api(operator, "GET", f"/api/v1/runs/{theirs}")[0] == 404
    assert api(operator, "GET", f"/api/v1/runs/{theirs}?all_tenants=1")[0] == 200
    assert api(account, "GET", "/api/v1/runs?all_tenants=1")[0] == 403
    assert api(account, "POST", f"/api/v1/runs/{theirs}/cancel?all_tenants=1")[0] == 403
    assert api(operator, "POST", f"/api/v1/runs/{theirs}/cancel?all_tenants=1")[1]["state"] == "CANCELLED"
    cancelled = Run.objects.get(pk=theirs)
    assert cancelled.reason == Reason.OPERATOR


# --- Nodes ---


def test_nodes(api: Api, account: Account, operator: Account, stage: Stage) -> None:
    run_id = submit(account.tenant_id, "true", cpu=1.5, mem_mb=1024)
    stage.start(run_id)
    status, body, _ = api(account, "GET", "/api/v1/nodes")
    assert status == 200
    assert set(body[0]) == keys(NodeSerializer)
    body[0].pop("heartbeat_at")
    assert body == [
        {
            "name": "node-a",
            "swarm_node_id": None,
            "state": "ready",
            "attributes": {"hostname": "agent-7", "rack_id": "r1"},
            "runtimes": ["process"],
            "cpus": 64.0,
            "cpus_free": 62.5,
            "mem_mb": 65_536,
            "mem_mb_free": 64_512,
            "running": 1,
            "version": "",
            "draining": False,
            "trouble": None,
        }
    ]
    # Runtimes of one engine have one trouble.
    Node.objects.update(troubles={"container": "no engine", "exec": "no engine", "process": "no launcher"})
    assert api(account, "GET", "/api/v1/nodes/node-a")[1]["trouble"] == "no engine; no launcher"
    for verb, state in (("drain", "draining"), ("undrain", "ready")):
        assert api(account, "POST", f"/api/v1/nodes/node-a/{verb}")[0] == 403
        status, node, _ = api(operator, "POST", f"/api/v1/nodes/node-a/{verb}")
        assert (status, node["state"]) == (200, state)
    stage.silence(3600)
    assert api(account, "GET", "/api/v1/nodes/node-a")[1]["state"] == "silent"
    assert api(account, "DELETE", "/api/v1/nodes/node-a")[0] == 403
    assert Node.objects.get().mode == "ready"
    status, node, _ = api(operator, "DELETE", "/api/v1/nodes/node-a")
    assert (status, node["state"]) == (200, "removed")
    for verb in ("drain", "drain?force=1", "undrain"):
        status, body, _ = api(operator, "POST", f"/api/v1/nodes/node-a/{verb}")
        assert (status, body["error"]["code"]) == (409, "conflict"), verb
        assert "undrain?force=1 brings it back" in body["error"]["message"]
        assert Node.objects.get().mode == "removed"
    status, node, _ = api(operator, "POST", "/api/v1/nodes/node-a/undrain?force=1")
    assert (status, node["state"]) == (200, "silent")
    assert Node.objects.get().mode == "ready"
    for method, path in (("GET", ""), ("POST", "/drain"), ("DELETE", "")):
        assert api(operator, method, f"/api/v1/nodes/nowhere{path}")[0] == 404


def test_a_private_run_is_shown_to_its_user_and_to_operators_alone(
    api: Api, account: Account, operator: Account
) -> None:
    colleague = make_account("default", trusted=True)
    user = Token.objects.get(user__username=account.user).user_id
    run_id = submit(account.tenant_id, "true", private_to=user)
    path = f"/api/v1/runs/{run_id}"
    for who, status in ((account, 200), (operator, 200), (colleague, 404)):
        assert api(who, "GET", path)[0] == status
        assert [row["id"] for row in api(who, "GET", "/api/v1/runs")[1]] == [run_id] * (status == 200)
        for call in ("explain", "logs"):
            assert api(who, "GET", f"{path}/{call}")[0] == status
    for call in ("cancel", "retry"):
        assert api(colleague, "POST", f"{path}/{call}")[0] == 404
    assert Run.objects.get(pk=run_id).state == State.PENDING
    assert api(account, "POST", f"{path}/cancel")[0] == 200
    status, again, _ = api(account, "POST", f"{path}/retry")
    assert status == 201
    assert api(colleague, "GET", f"/api/v1/runs/{again['id']}")[0] == 404
