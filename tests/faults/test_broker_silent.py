"""Fault 8: Redis accepts connections and never answers. And: the whole service starts without any Redis.

Nothing on a request's way talks to Redis, and nodes find work by themselves: a silent broker may cost runs a
little latency and nothing else. Both pages for people say so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, Process
from tests.support.engine import submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.invariants import assert_invariants
from tests.support.machine import process_state
from tests.support.outages import redis_down, redis_silent, wait_broker_trusted, wait_broker_used
from tests.support.session import REDIS
from tests.support.waiting import holds_for, wait_until
from workers.models import Run
from workers.vocabulary.states import State


def _assert_says_so(client: TaskClient, node: Process) -> None:
    """/readyz and explain tell of the silence, and the service is ready."""
    status, body = client.ready()
    assert (status, body["status"], body["database"]) == (200, "ready", "ok")
    assert body["broker"].startswith("down: "), body
    waiting = client.submit("true", constraints={"field": "rack_id", "values": ["r9"]})
    told = _wait_explained(client, waiting)
    assert all(item["remedy"] and item["message"] for item in told)
    assert client.explain(waiting)["reasons"][0]["code"] == "constraint", "the strongest reason comes first"
    answer = client.http.post("/v1/tasks/kill", params={"taskId": waiting})
    assert answer.json()["data"]["submitKill"] is True
    node.wait_said("broker.silent")


def _wait_explained(client: TaskClient, run_id: int) -> list[dict[str, Any]]:
    """Wait until explain tells of the API's rings and of the node's messages."""

    def told() -> list[dict[str, Any]]:
        return [item for item in client.explain(run_id)["reasons"] if item["code"] == "broker"]

    wait_until(lambda: len(told()) == 2, 90, why="explain says that the broker is silent", see=told)
    return told()


def _assert_quiet_again(client: TaskClient, account: Account) -> None:
    wait_broker_trusted()
    wait_broker_used(account.tenant_id)
    wait_until(lambda: client.ready()[1]["broker"] == "ok", why="/readyz says ok again", see=client.ready)
    assert client.ready()[0] == 200
    run_id = client.submit("true", constraints={"field": "rack_id", "values": ["r9"]})
    wait_until(
        lambda: [item["code"] for item in client.explain(run_id)["reasons"]] == ["constraint"],
        why="explain has nothing to say of the broker any more",
    )
    client.http.post("/v1/tasks/kill", params={"taskId": run_id})


def test_no_request_waits_for_a_silent_redis(cluster: Cluster, account: Account) -> None:
    """Catches any talk with Redis on the way of a request: here each would last an hour.

    From the very first request, when nobody can have learnt anything yet. (What a silent Redis costs all the
    same, by the threads that do wait, is measured: mark 17.)
    """
    api = cluster.api(DJANGO_SETTINGS_MODULE="tests.faults.endless_redis")
    with TaskClient(api, account) as client:
        with redis_silent():
            ids = [client.submit("true", key=f"k{number}") for number in range(30)]
            assert client.submit("true", key="k0") == ids[0]
            assert client.http.get(f"/v1/tasks/{ids[0]}").json()["data"]["taskStatus"] == -1
            assert client.explain(ids[0])["reasons"]
            killed = client.http.post("/v1/tasks/kill", params={"taskId": ids[0]}).json()["data"]
            assert killed["submitKill"] is True
            assert client.http.get("/healthz").status_code == 200
            assert process_state(REDIS.pid) == "T", "it answered meanwhile: this proves nothing"
        cluster.node()
        wait_final(*ids)
    assert Run.objects.filter(pk__in=ids, state=State.SUCCEEDED).count() == 29
    assert_invariants(cluster)


def _silent_while_runs_flow(cluster: Cluster, account: Account, windows: int) -> None:
    node, api = cluster.node(), cluster.api()
    with TaskClient(api, account) as client:
        wait_final(client.submit("true"))
        with redis_silent():
            for _ in range(windows):
                wait_final(*(client.submit("true") for _ in range(40)))
            _assert_says_so(client, node)
            wait_final(*(client.submit("true") for _ in range(40)))
        _assert_quiet_again(client, account)
    assert not Run.objects.exclude(state__in=(State.SUCCEEDED, State.CANCELLED)).exists()
    assert_invariants(cluster)


def test_silent_redis_stops_no_run(cluster: Cluster, account: Account) -> None:
    """Catches a run that waits for its message for ever, a silence that nobody names, a broker path that
    stays dead."""
    _silent_while_runs_flow(cluster, account, 1)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_redis_silent_for_long(cluster: Cluster, account: Account) -> None:
    """The same for 40 windows: connections that time out again and again."""
    _silent_while_runs_flow(cluster, account, 40)


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
            _wait_explained(client, waiting)
            client.http.post("/v1/tasks/kill", params={"taskId": waiting})
    assert node.alive
    with TaskClient(api, account) as client:
        _assert_quiet_again(client, account)
    assert Run.objects.filter(pk__in=ids, state=State.SUCCEEDED).count() == 20
    assert_invariants(cluster)


@pytest.mark.long
def test_a_node_that_is_full_hears_from_the_broker(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a canary that waits behind runs for a place: "look at Redis", which is well."""
    gate = shared_folder / "gate"
    gate.touch()
    worker = cluster.node(GANTRY_NODE_SLOTS="1")
    run_id = submit(account.tenant_id, f"while test -e {gate}; do sleep 0.1; done")
    wait_started(run_id)
    holds_for(lambda: "broker.silent" not in worker.text(), 25, "longer than between two canaries")
    gate.unlink()
    wait_final(run_id)
