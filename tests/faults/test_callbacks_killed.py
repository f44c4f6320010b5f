"""The process that delivers callbacks is killed, frozen, doubled, or cut off from the broker or the database.

Nothing that is owed is lost; what may come twice comes under the same webhook-id and in order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta

import httpx
import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from tests.contracts.tasks.conftest import Stage
from tests.faults.test_callbacks_receivers import owe, wait_states
from tests.support.cluster import Cluster, Process, wait_until
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.invariants import assert_invariants
from tests.support.machine import wait_dead
from tests.support.outages import patiently, postgres_down, redis_down, redis_silent
from tests.support.receivers import OPEN, Receivers, hang
from workers import outbox, services
from workers.crashpoints import CALLBACK_STEPS
from workers.models import Callback, CallbackAttempt, CallbackReceiver, Deliverer, Run
from workers.states import State


def assert_told(them: Receivers, run_id: int, path: str) -> None:
    """Start and end came at least once each, each under one id, in order; the record agrees."""
    rows = list(Callback.objects.filter(run_id=run_id).order_by("sequence"))
    assert [row.event for row in rows] == ["running", "ended"]
    assert {row.state for row in rows} == {"delivered"}
    ids = them.ids(path)
    assert set(ids) == {row.message_id for row in rows}
    assert ids == sorted(ids, key=[row.message_id for row in rows].index), "the end came before the start"
    accepted = CallbackAttempt.objects.filter(callback__run_id=run_id, status=200)
    assert accepted.count() == 2, "each is recorded as accepted once"


@pytest.mark.parametrize("step", CALLBACK_STEPS)
def test_it_dies_at_a_step(cluster: Cluster, account: Account, them: Receivers, step: str) -> None:
    """Catches what is lost, or sent under another id, because the process died between two effects."""
    mark = cluster.folder / "crashed"
    stage = Stage()
    crash = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mark)}
    brief = {"GANTRY_CALLBACK_LEASE_S": "4", "GANTRY_CALLBACK_TIMEOUT_S": "2.5"}
    # Not waited for: at the first step it dies with its first look, perhaps before anybody saw its heartbeat.
    dying = cluster.callbacks(wait=False, settings={**OPEN, **crash, **brief})
    run_id = submit(account.tenant_id, "true", callback_url=them.url("/a"))
    run = stage.start(run_id)
    wait_dead(dying, 90)
    assert mark.exists(), f"it died of something else:\n{dying.text()[-2000:]}"
    stage.finish(run, State.SUCCEEDED, exit_code=0)
    cluster.callbacks(settings=OPEN)
    wait_states(delivered=2)
    assert_told(them, run_id, "/a")
    most = 3 if step in ("callbacks.after_send", "callbacks.before_record_commit") else 2
    assert len(them.ids("/a")) == most, "only what had been sent and not recorded is sent again"


def test_the_api_dies_before_it_rings(cluster: Cluster, account: Account, them: Receivers) -> None:
    """A kill of a waiting task is committed with its callback; nobody rings for it, and it is delivered."""
    cluster.callbacks(settings=OPEN)
    mark = cluster.folder / "died"
    dying = cluster.api(GANTRY_CRASH_AT="api.before_callback_ring", GANTRY_CRASH_ONCE=str(mark))
    with TaskClient(dying, account) as client:
        run_id = client.submit("true", callbackUrl=them.url("/k"))
        with pytest.raises(httpx.TransportError):
            client.http.post(f"/v1/tasks/kill?taskId={run_id}")
    assert mark.exists()
    wait_states(delivered=1)
    (delivery,) = them.at("/k")
    assert delivery.json["result"] == "KILLED"
    os.killpg(dying.pid, signal.SIGKILL)


def test_a_frozen_one_is_replaced_and_writes_nothing_afterwards(
    cluster: Cluster, account: Account, them: Receivers
) -> None:
    them.answers["/h"] = hang(3)
    first = cluster.callbacks(
        "c1", settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "3", "GANTRY_CALLBACK_LEASE_S": "5"}
    )
    owe(account.tenant_id, [them.url("/h")])
    wait_until(lambda: them.at("/h"), why="it is being sent")
    first.freeze()
    try:
        del them.answers["/h"]
        cluster.callbacks("c2", settings=OPEN)
        wait_states(delivered=1)
    finally:
        first.thaw()
    wait_until(lambda: "callbacks.lease_taken" in first.text(), why="it notices that its lease is gone")
    row = Callback.objects.get()
    assert (row.state, row.attempts_made, row.attempts.count()) == ("delivered", 1, 1)
    assert len(set(them.ids("/h"))) == 1


def test_another_takes_over_from_a_dead_one_and_its_absence_is_told(
    cluster: Cluster, account: Account, them: Receivers, client: Client
) -> None:
    """Catches receivers that stay leased by the dead until something restarts, a silence nobody names."""
    them.answers["/h"] = hang()
    first = cluster.callbacks(
        "c1", settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "4", "GANTRY_CALLBACK_LEASE_S": "6"}
    )
    run_id = submit(account.tenant_id, "true", callback_url=them.url("/h"))
    stage = Stage()
    run = stage.start(run_id)
    wait_until(lambda: them.at("/h"), why="it is being sent")
    second = cluster.callbacks("c2", settings=OPEN)
    first.kill()
    them.answers.clear()
    wait_states(delivered=1)
    assert len(set(them.ids("/h"))) == 1
    assert [row.holder for row in CallbackReceiver.objects.all()] == ["c2"]
    assert not outbox.delivery_trouble(), "c2 is there"
    second.kill()
    stage.finish(run, State.SUCCEEDED, exit_code=0)
    Deliverer.objects.update(heartbeat_at=Now() - timedelta(seconds=outbox.SILENT_S + 10))
    warnings = client.get("/readyz").json()["warnings"]
    assert any("nobody delivers them (none has been heard for 4" in text for text in warnings), warnings
    assert "start manage.py callbacks" in str(services.explain(account.tenant_id, run_id)["reasons"])
    cluster.callbacks("c3", settings=OPEN)
    wait_states(delivered=2)
    assert_told(them, run_id, "/h")
    assert client.get("/readyz").json()["warnings"] == [text for text in warnings if "nobody" not in text]


def test_several_deliver_together_and_nothing_twice(
    cluster: Cluster, account: Account, them: Receivers
) -> None:
    for name in ("c1", "c2", "c3"):
        cluster.callbacks(name, settings=OPEN)
    for turn in range(4):
        owe(account.tenant_id, [them.url(f"/{turn}/{n}", n % 10) for n in range(60)], f"t{turn}-")
    wait_states(delivered=240)
    ids = [item.id for item in them.got]
    assert len(ids) == len(set(ids)) == 240
    assert set(them.most.values()) == {1}, "one connection per receiver, whoever serves it"
    wait_until(
        lambda: sum(Deliverer.objects.values_list("delivered", flat=True)) == 240, why="all are counted"
    )


def test_without_the_broker_it_goes_on(cluster: Cluster, account: Account, them: Receivers) -> None:
    worker = cluster.callbacks(settings=OPEN)
    wait_until(lambda: "broker.back" in worker.text(), why="it uses the broker")
    owe(account.tenant_id, [them.url("/before")])
    wait_states(delivered=1)
    with redis_down():
        owe(account.tenant_id, [them.url("/down")], "d")
        wait_states(delivered=2)
    with redis_silent():
        owe(account.tenant_id, [them.url("/silent")], "s")
        wait_states(delivered=3)
    owe(account.tenant_id, [them.url("/after")], "a")
    wait_states(delivered=4)
    assert len(them.got) == 4


def test_the_database_goes_away_while_it_sends(cluster: Cluster, account: Account, them: Receivers) -> None:
    """What was sent while nobody could record it is sent again, under the same id."""
    them.answers["/slow"] = hang(2)
    settings = {**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "4", "GANTRY_CALLBACK_LEASE_S": "20"}
    cluster.callbacks(settings=settings)
    owe(account.tenant_id, [them.url("/slow")])
    wait_until(lambda: them.at("/slow"), why="it is being sent")
    with postgres_down():
        time.sleep(2.5)
        them.answers.clear()
    wait_until(
        patiently(lambda: Callback.objects.filter(state="delivered").count() == 1), 90, why="it is delivered"
    )
    assert len(set(them.ids("/slow"))) == 1


@pytest.mark.alone
def test_it_stops_within_five_seconds_and_gives_back(
    cluster: Cluster, account: Account, them: Receivers
) -> None:
    """TERM while one hangs: the process ends, and the next one goes on at once, before the lease is over."""
    them.answers["/h"] = hang()
    settings = {**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "30", "GANTRY_CALLBACK_LEASE_S": "120"}
    worker = cluster.callbacks(settings=settings)
    owe(account.tenant_id, [them.url("/h")])
    wait_until(lambda: them.at("/h"), why="it is being sent")
    began = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - began < 20, "5 s, and what a loaded machine adds; it hangs for 30"
    assert Deliverer.objects.get().detached
    them.answers.clear()
    cluster.callbacks(settings=settings)
    wait_states(delivered=1)
    assert set(them.ids("/h")) == {Callback.objects.get().message_id}


def test_killed_again_and_again_under_load(cluster: Cluster, account: Account, them: Receivers) -> None:
    """Tasks come and go while the deliverer is killed; every start and end is told, in order."""
    cluster.node()
    stopping = threading.Event()
    current: list[Process] = [cluster.callbacks(settings=OPEN)]

    def kill() -> None:
        for _ in range(3):
            if stopping.wait(1.5):
                return
            current[0].kill()
            current[0] = cluster.callbacks(wait=False, settings=OPEN)
        connection.close()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        runs = {}
        for number in range(40):
            path = f"/r/{number}"
            runs[path] = submit(account.tenant_id, "sleep 0.1", callback_url=them.url(path, number % 7))
            time.sleep(0.1)
        killer.join(120)
    finally:
        stopping.set()
    wait_final(*runs.values())
    wait_states(delivered=80)
    for path, run_id in runs.items():
        assert_told(them, run_id, path)
    assert Run.objects.count() == 40
    assert_invariants(cluster)
