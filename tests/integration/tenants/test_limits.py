"""Limits of a tenant: waiting runs, running runs, requests a second. Exact under concurrency, and cheap."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from config.http import throttles
from tests.integration.conftest import Api
from tests.integration.engine_rows import World, cursor, together
from tests.support.cluster import Cluster
from tests.support.engine import run, submit, wait_final
from tests.support.fixtures import Account, make_account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.models import Run, Tenant, TenantLoad
from workers.runs import transitions
from workers.scheduling import claiming
from workers.tenants import limits, tenancy
from workers.vocabulary.errors import InvalidInput, LimitReached
from workers.vocabulary.states import State

TASK = {"taskName": "n", "commands": "true"}


def limit(tenant: str, **given: int) -> None:
    tenancy.update_tenant(tenant, given_limits=given)


def counted(tenant_id: int) -> int:
    with connection.cursor() as opened:
        return limits.waiting(opened, tenant_id)


def pending(tenant_id: int) -> int:
    return Run.objects.filter(tenant_id=tenant_id, state=State.PENDING).count()


# --- The count ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_database_counts_waiting_runs_whatever_moves_them() -> None:
    world = World()
    node = world.node()
    tenant = world.tenant.pk
    first = world.submit(retries=1)
    others = [world.submit() for _ in range(6)]
    assert counted(tenant) == 7
    (claimed,) = world.claim(node, first)
    assert counted(tenant) == 6
    world.retry(claimed.lease)
    assert counted(tenant) == 7
    world.cancel(others[0])
    world.reject(others[1])
    assert counted(tenant) == 5
    Run.objects.filter(pk=others[2]).update(expires_at="2020-01-01T00:00:00Z")
    assert world.expire() == {others[2]}
    (claimed,) = world.claim(node, others[3])
    world.release(claimed.lease)
    (claimed,) = world.claim(node, others[4])
    world.finish(claimed.lease)
    Run.objects.filter(pk=others[5]).delete()
    assert counted(tenant) == pending(tenant) == 2


@pytest.mark.django_db(transaction=True)
def test_rows_of_connections_that_are_gone_are_folded_and_the_sum_stays() -> None:
    world = World()
    together(*[world.submit for _ in range(5)])
    tenant = world.tenant.pk
    world.submit()
    assert TenantLoad.objects.filter(tenant_id=tenant).count() > 1
    gone = TenantLoad.objects.filter(tenant_id=tenant)
    with connection.cursor() as opened:
        opened.execute("SELECT pg_backend_pid()")
        mine = opened.fetchone()[0]
        # As if these connections had ended: no backend has such a process id.
        opened.execute("UPDATE workers_tenantload SET writer = -writer WHERE writer <> %s", [mine])
    before = gone.count()
    assert limits.fold(100) == before - 1
    assert limits.fold(100) == 0
    assert set(gone.values_list("writer", flat=True)) == {0, mine}
    assert counted(tenant) == 6


# --- Waiting runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 20])
@pytest.mark.django_db(transaction=True)
def test_submissions_at_the_same_moment_never_exceed_the_limit(most: int) -> None:
    account = make_account("default", trusted=True)
    limit("default", waiting_runs=most)
    refused: list[LimitReached] = []

    def several() -> None:
        for _ in range(6):
            try:
                submit(account.tenant_id, "true")
            except LimitReached as error:
                refused.append(error)

    together(*[several] * 8)
    assert pending(account.tenant_id) == counted(account.tenant_id) == most
    assert len(refused) == 48 - most
    assert {error.limit for error in refused} == {most}


def test_the_answer_says_what_is_full_and_when_to_come_back(
    client: Client, account: Account, api: Api
) -> None:
    limit("default", waiting_runs=2)
    for _ in range(2):
        assert api(account, "POST", "/v1/tasks", TASK)[0] == 200
    status, body, response = api(account, "POST", "/v1/tasks", TASK)
    assert (status, response.reason_phrase) == (429, "Too Many Requests")
    assert body["status"] == -2127560592
    assert "has 2 of at most 2 runs waiting (waiting_runs)" in body["message"]
    assert (response["Retry-After"], response["X-RateLimit-Limit"]) == ("5", "2")
    assert response["X-RateLimit-Remaining"] == "0"
    assert Run.objects.count() == 2
    # The same with a key, which can be used again later; a repetition of an accepted one needs no room.
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[0] == 429
    services.cancel(account.tenant_id, Run.objects.order_by("pk").values_list("pk", flat=True)[0])
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[0] == 200
    assert api(account, "POST", "/v1/tasks", TASK, Idempotency_Key="k")[0] == 200
    ended = Run.objects.get(state=State.CANCELLED).pk
    status, body, _ = api(account, "POST", f"/api/v1/runs/{ended}/retry")
    assert (status, body["error"]["code"]) == (429, "limit_reached")


def test_one_tenant_at_its_limit_does_not_touch_another(
    account: Account, stranger: Account, api: Api
) -> None:
    limit("default", waiting_runs=1)
    assert [api(account, "POST", "/v1/tasks", TASK)[0] for _ in range(2)] == [200, 429]
    assert api(stranger, "POST", "/v1/tasks", TASK)[0] == 200


def test_far_below_the_limit_a_submission_costs_its_insert_only(account: Account, remembered: None) -> None:
    submit(account.tenant_id, "true")
    with CaptureQueriesContext(connection) as queries:
        submit(account.tenant_id, "true")
    assert not [
        query["sql"] for query in queries if "tenantload" in query["sql"] or "advisory" in query["sql"]
    ]
    assert len([query for query in queries if query["sql"].startswith("INSERT")]) == 1


@pytest.mark.django_db
def test_a_remembered_count_is_not_trusted_near_the_limit(settings: Settings) -> None:
    settings.GANTRY_TENANT_WAITING_RUNS = 3000
    world = World()
    limits.forget()
    assert limits._far_below(world.tenant.pk, 3000, 1)
    limits._counts[world.tenant.pk][2] = 3000 - limits._TAIL
    assert not limits._far_below(world.tenant.pk, 3000, 1)
    # One submission of many at once counts as many.
    limits.forget()
    assert not limits._far_below(world.tenant.pk, 3000, 2500)


# --- Running runs ---------------------------------------------------------------------------------------


def look(world: World, node: Any, most: int = 16) -> list[int]:
    memory = claiming.Memory()
    return [run.lease.run_id for run in claiming.look(node.pk, 1, memory, most).claimed]


@pytest.mark.django_db(transaction=True)
def test_a_tenant_runs_as_many_as_it_may_on_all_nodes_together() -> None:
    world = World(cpu_m=10, mem_mb=1)
    nodes = [world.node(f"n{number}") for number in range(4)]
    for _ in range(40):
        world.submit()
    limit("default", running_runs=7)
    taken = together(*[lambda node=node: look(world, node) for node in nodes])
    assert sum(map(len, taken)) == 7
    assert Run.objects.filter(state=State.RUNNING).count() == 7
    together(*[lambda node=node: look(world, node) for node in nodes])
    assert Run.objects.filter(state=State.RUNNING).count() == 7
    # Runs that are skipped because of it reserve no node.
    assert not [node.pk for node in nodes if type(node).objects.get(pk=node.pk).reserved_for_id]


@pytest.mark.django_db
def test_others_go_on_and_the_explanation_says_why() -> None:
    world = World(cpu_m=10, mem_mb=1)
    node = world.node()
    other = world.add_shape(Tenant.objects.create(name="other"), cpu_m=10, mem_mb=1)
    mine = [world.submit() for _ in range(5)]
    theirs = [world.submit(shape=other) for _ in range(3)]
    limit("default", running_runs=2)
    assert set(look(world, node)) == {*mine[:2], *theirs}
    told = services.explain(world.tenant.pk, mine[2])
    assert told["reasons"][0] == {  # type: ignore[index]
        "code": "quota",
        "message": "your tenant runs 2 of 2",
        "need": 1,
        "free": 0,
        "quota": 2,
        "blocked_by": [],
        "remedy": "wait for one of them to end, or ask an operator for a higher limit (running_runs)",
    }
    from workers.scheduling import explain

    assert explain.why_waiting([world.shape.pk])[world.shape.pk].startswith("your tenant runs 2 of 2")
    limit("default", running_runs=0)
    assert set(look(world, node)) == set(mine[2:])


def test_real_nodes_keep_the_quota(cluster: Cluster, shared_folder: Path) -> None:
    account = make_account("default", trusted=True)
    limit("default", running_runs=2)
    for name in ("n1", "n2"):
        cluster.node(name)
    gate = shared_folder / "gate"
    ids = [submit(account.tenant_id, f"until test -e {gate}; do sleep 0.05; done") for _ in range(8)]
    most = 0

    def running() -> int:
        nonlocal most
        found = Run.objects.filter(state=State.RUNNING).count()
        most = max(most, found)
        return found

    wait_until(lambda: running() == 2, why="two of them run", see=running)
    other = make_account("other", trusted=True)
    wait_final(*(submit(other.tenant_id, "true") for _ in range(4)))  # the nodes have looked again since
    gate.touch()
    wait_until(
        lambda: running() == 0 and all(run(run_id).state == State.SUCCEEDED for run_id in ids),
        90,
        0.02,
        why="everything runs, two at a time",
    )
    assert most == 2
    assert_invariants(cluster)


# --- Requests a second ------------------------------------------------------------------------------------


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for the buckets of this process, and a busy Redis has all of it to answer."""
    now = time.monotonic()
    monkeypatch.setattr(throttles, "time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
    monkeypatch.setattr(throttles, "_PATIENCE_S", 60.0)


def test_requests_beyond_the_rate_are_429_in_each_envelope(
    client: Client, account: Account, stranger: Account, standing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttles.rates, "_wake", lambda: None)  # nothing is settled meanwhile
    limit("default", requests_per_s=2)
    answers = [client.get("/api/v1/me", headers=account.headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert [answer["X-RateLimit-Remaining"] for answer in answers[:4]] == ["3", "2", "1", "0"]
    assert answers[-1]["X-RateLimit-Limit"] == "2"
    assert answers[-1]["Retry-After"] == "1"
    assert answers[-1].json()["error"]["code"] == "throttled"
    assert "requests_per_s" in answers[-1].json()["error"]["message"]
    refused = client.get("/v1/tasks?taskIds=1", headers=account.headers)
    assert (refused.status_code, refused.json()["status"]) == (429, -2127560592)
    assert client.get("/api/v1/me", headers=stranger.headers).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_the_rate_holds_over_all_processes(standing: None) -> None:
    """Two processes spend from one bucket, and what they spend too much is paid back by both."""
    # A token every two seconds, one at once: in Redis, whose time goes on, nothing comes back meanwhile.
    one, two = throttles.TenantRates(), throttles.TenantRates()
    one._wake = two._wake = lambda: None  # type: ignore[method-assign]  # settled by hand
    assert sum(one.take(1, 0.5)[0] == 0 for _ in range(5)) == 1
    one.settle()
    assert sum(two.take(1, 0.5)[0] == 0 for _ in range(5)) == 1  # it has not heard of the other yet
    two.settle()
    wait, _ = two.take(1, 0.5)
    assert wait > 2, "one too many is a debt"
    one._accounts[1].spent = 1
    one.settle()
    also, _ = one.take(1, 0.5)
    assert also > 2


def test_without_redis_the_rate_holds_per_process(settings: Settings) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    rates = throttles.TenantRates()
    rates._wake = lambda: None  # type: ignore[method-assign]
    taken, began = 0, time.monotonic()
    for _ in range(3):
        taken += sum(rates.take(1, 5)[0] == 0 for _ in range(8))
        rates.settle()
    assert 10 <= taken <= 12 + 5 * (time.monotonic() - began)
    buckets = throttles.SharedBuckets("x", 3, 0.001)
    assert [buckets.take("a") > 0 for _ in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize("forget", [False, True])
def test_shared_buckets_are_one_for_all_processes(forget: bool, standing: None) -> None:
    one, two = (throttles.SharedBuckets("x", 3, 0.01) for _ in range(2))
    assert [one.take("a"), two.take("a"), one.take("a")] == [0, 0, 0]
    if forget:
        two.forget("a")
        assert one.take("a") == 0
    else:
        assert 50 < two.take("a") <= 100
    assert two.take("b") == 0


# --- Operators ------------------------------------------------------------------------------------------


def test_operators_set_limits_and_tenants_see_them(api: Api, account: Account, operator: Account) -> None:
    limits_of = {"waiting_runs": 3, "requests_per_s": 500}
    status, body, _ = api(operator, "PATCH", "/api/v1/tenants/default", {"limits": limits_of})
    assert (status, body["limits"]) == (200, limits_of)
    assert api(account, "POST", "/v1/tasks", TASK)[0] == 200
    assert api(account, "GET", "/api/v1/limits")[1] == {
        "waiting_runs": {"used": 1, "limit": 3},
        "running_runs": {"used": 0, "limit": 10_000},
        "requests_per_s": {"limit": 500},
    }
    for wrong, says in (
        ({"waiting": 3}, "has no key 'waiting'"),
        ({"waiting_runs": -1}, "whole number"),
        ({"waiting_runs": True}, "whole number"),
        ({"waiting_runs": "3"}, "whole number"),
        ([], "must be an object"),
    ):
        status, body, _ = api(operator, "PATCH", "/api/v1/tenants/default", {"limits": wrong})
        assert status == 400, wrong
        assert says in body["error"]["message"]
        assert body["error"]["field"] == "limits"
    assert api(account, "PATCH", "/api/v1/tenants/default", {"limits": {}})[0] == 403
    status, body, _ = api(operator, "POST", "/api/v1/tenants", {"name": "new", "limits": {"running_runs": 1}})
    assert (status, body["limits"]) == (201, {"running_runs": 1})
    with pytest.raises(InvalidInput):
        limits.checked({"waiting_runs": 1.5})


@pytest.mark.django_db(transaction=True)
def test_a_lock_of_one_tenant_holds_up_nobody_else() -> None:
    """A transaction that has submitted near the limit and does not end blocks its own tenant only."""
    mine, other = make_account("default", trusted=True), make_account("other", trusted=True)
    for name in ("default", "other"):
        limit(name, waiting_runs=5)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            submit(mine.tenant_id, "true")
            held.set()
            done.wait(60)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(60)
        submit(other.tenant_id, "true")
        with cursor() as opened:
            opened.execute("SET LOCAL lock_timeout = '100ms'")
            assert transitions.expire(opened, 10, by="test") == set()
    finally:
        done.set()
        holder.join()
    assert pending(mine.tenant_id) == pending(other.tenant_id) == 1
