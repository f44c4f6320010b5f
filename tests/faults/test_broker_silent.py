"""Fault 8: Redis accepts connections and never answers. And: the whole service starts without any Redis.

Nothing on a request's way talks to Redis, and nodes find work by themselves: a silent broker may cost runs a
little latency and nothing else. Both pages for people say so.
"""

from __future__ import annotations

import time

import pytest

from tests.support.cluster import Cluster, Process, wait_until
from tests.support.engine import wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient, percentile
from tests.support.invariants import assert_invariants
from tests.support.outages import redis_down, redis_silent, wait_broker_trusted, wait_broker_used
from workers.models import Run
from workers.states import State

#: Seconds beyond the baseline that a POST may take while Redis is silent (its clients give up after 0.5 s).
BEYOND = 0.1
_PACE_S = 0.04


def _window(client: TaskClient, requests: int) -> list[float]:
    """Submit at a steady pace while the runs flow; returns how long each request took."""
    before = len(client.took)
    ids = []
    for _ in range(requests):
        ids.append(client.submit("true"))
        time.sleep(_PACE_S)  # the pace is the load, nothing is waited for
    wait_final(*ids)
    return client.took[before:]


def _assert_says_so(client: TaskClient, node: Process) -> None:
    """/readyz and explain tell of the silence; both at once, and the service is ready."""
    began = time.monotonic()
    status, body = client.ready()
    assert (status, body["status"], body["database"]) == (200, "ready", "ok")
    assert body["broker"].startswith("down: "), body
    waiting = client.submit("true", constraints={"field": "rack_id", "values": ["r9"]})
    assert time.monotonic() - began < 15, "it waited for the broker, which is silent for longer than that"
    told = wait_until(
        lambda: [item for item in client.explain(waiting)["reasons"] if item["code"] == "broker"],
        why="explain says that the broker is silent",
    )
    wait_until(
        lambda: len([item for item in client.explain(waiting)["reasons"] if item["code"] == "broker"]) == 2,
        why="explain says it of the API's rings and of the node's messages",
    )
    assert all(item["remedy"] and item["message"] for item in told)
    assert client.explain(waiting)["reasons"][0]["code"] == "constraint", "the strongest reason comes first"
    answer = client.http.post("/v1/tasks/kill", params={"taskId": waiting})
    assert answer.json()["data"]["submitKill"] is True
    assert "broker.silent" in node.text()


def _assert_quiet_again(client: TaskClient, account: Account) -> None:
    wait_broker_trusted()
    wait_broker_used(account.tenant_id)
    status, _ = wait_until(
        lambda: (found := client.ready())[1]["broker"] == "ok" and found, why="/readyz says ok again"
    )
    assert status == 200
    run_id = client.submit("true", constraints={"field": "rack_id", "values": ["r9"]})
    wait_until(
        lambda: [item["code"] for item in client.explain(run_id)["reasons"]] == ["constraint"],
        why="explain has nothing to say of the broker any more",
    )
    client.http.post("/v1/tasks/kill", params={"taskId": run_id})


@pytest.mark.alone
def test_silent_redis_delays_no_request_and_stops_no_run(cluster: Cluster, account: Account) -> None:
    """Catches any talk with Redis on the way of a request or of a run, and a broker path that stays dead.

    Other programs of a busy machine hold up single requests; Redis would hold up some in every window. So the
    quietest window counts, and the median of the first requests, when nobody can have learnt anything yet.
    """
    node, api = cluster.node(), cluster.api()
    with TaskClient(api, account) as client:
        _window(client, 20)
        baseline = min(percentile(_window(client, 40), 0.99) for _ in range(2))
        with redis_silent():
            began = time.monotonic()
            first = [_window(client, 1)[0] for _ in range(9)]
            assert percentile(first, 0.5) < baseline + BEYOND, first
            quietest = percentile(_window(client, 40), 0.99)
            _assert_says_so(client, node)
            while time.monotonic() - began < 15 or (
                quietest >= baseline + BEYOND and time.monotonic() - began < 45
            ):
                quietest = min(quietest, percentile(_window(client, 40), 0.99))
        assert quietest < baseline + BEYOND, f"p99 {quietest:.3f} s, with a working Redis {baseline:.3f} s"
        _assert_quiet_again(client, account)
    assert not Run.objects.exclude(state__in=(State.SUCCEEDED, State.CANCELLED)).exists()
    assert_invariants(cluster)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_redis_silent_for_a_minute(cluster: Cluster, account: Account) -> None:
    """The same for 60 s with the p99 over every request; for a machine that does nothing else."""
    node, api = cluster.node(), cluster.api()
    with TaskClient(api, account) as client:
        _window(client, 20)
        baseline = percentile(_window(client, 500), 0.99)
        silent: list[float] = []
        with redis_silent():
            began = time.monotonic()
            while time.monotonic() - began < 60:
                silent += _window(client, 100)
            _assert_says_so(client, node)
        p99 = percentile(silent, 0.99)
        print(f"p99 of POST: {1000 * baseline:.1f} ms before, {1000 * p99:.1f} ms with a silent Redis")
        assert p99 < baseline + BEYOND
        _assert_quiet_again(client, account)
    assert_invariants(cluster)


def test_everything_starts_and_serves_without_redis(cluster: Cluster, account: Account) -> None:
    """Catches a start that waits for Redis: API and node come up without it, work, and say so."""
    with redis_down():
        api = cluster.api()
        node = cluster.node(GANTRY_WAIT_BROKER="0")
        with TaskClient(api, account) as client:
            status, body = client.ready()
            assert (status, body["status"]) == (200, "ready")
            assert body["broker"].startswith("down: "), body
            ids = [client.submit(f"echo {n}") for n in range(20)]
            wait_final(*ids)
            waiting = client.submit("true", constraints={"field": "rack_id", "values": ["r9"]})
            wait_until(
                lambda: len([r for r in client.explain(waiting)["reasons"] if r["code"] == "broker"]) == 2,
                why="explain says that the broker is silent",
            )
            client.http.post("/v1/tasks/kill", params={"taskId": waiting})
    assert node.alive
    with TaskClient(api, account) as client:
        _assert_quiet_again(client, account)
    assert Run.objects.filter(pk__in=ids, state=State.SUCCEEDED).count() == 20
    assert_invariants(cluster)
