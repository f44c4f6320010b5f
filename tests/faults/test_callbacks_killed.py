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
from tests.support.cluster import Cluster, Process
from tests.support.engine import submit, wait_final
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.invariants import assert_invariants
from tests.support.machine import wait_dead
from tests.support.outages import patiently, postgres_down, redis_down, redis_silent
from tests.support.receivers import OPEN, Receivers, hang, held
from tests.support.waiting import limit, wait_until
from workers import services
from workers.callbacks import outbox
from workers.models import Callback, CallbackAttempt, CallbackReceiver, Deliverer, Run
from workers.vocabulary.crashpoints import CALLBACK_STEPS
from workers.vocabulary.states import State


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


def lease_runs_out() -> None:
    """Of every receiver, now: what the holder would have to live through, frozen or dead."""
    CallbackReceiver.objects.filter(lease_until__isnull=False).update(lease_until=Now())


@pytest.mark.parametrize("step", CALLBACK_STEPS)
def test_it_dies_at_a_step(cluster: Cluster, account: Account, them: Receivers, step: str) -> None:
    """Catches what is lost, or sent under another id, because the process died between two effects."""
    mark = cluster.folder / "crashed"
    stage = Stage()
    crash = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mark)}
    # Not waited for: at the first step it dies with its first look, perhaps before anybody saw its heartbeat.
    dying = cluster.callbacks(wait=False, settings={**OPEN, **crash})
    run_id = submit(account.tenant_id, "true", callback_url=them.url("/a"))
    run = stage.start(run_id)
    wait_dead(dying, 90)
    assert mark.exists(), f"it died of something else:\n{dying.text()[-2000:]}"
    lease_runs_out()
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
    gate = threading.Event()
    them.answers["/h"] = held(gate)
    first = cluster.callbacks("c1", settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "300"})
    owe(account.tenant_id, [them.url("/h")])
    wait_until(lambda: them.at("/h"), why="it is being sent")
    first.freeze()
    try:
        them.answers.clear()
        lease_runs_out()
        cluster.callbacks("c2", settings=OPEN)
        wait_states(delivered=1)
    finally:
        gate.set()  # the first one is told that it was taken, and may not write it down
        first.thaw()
    first.wait_said("callbacks.lease_taken")
    row = Callback.objects.get()
    assert (row.state, row.attempts_made, row.attempts.count()) == ("delivered", 1, 1)
    assert len(set(them.ids("/h"))) == 1


def test_another_takes_over_from_a_dead_one_and_its_absence_is_told(
    cluster: Cluster, account: Account, them: Receivers, client: Client
) -> None:
    """Catches receivers that stay leased by the dead until something restarts, a silence nobody names."""
    them.answers["/h"] = hang()
    first = cluster.callbacks(
        "c1", settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "8", "GANTRY_CALLBACK_LEASE_S": "12"}
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
    assert any("nobody delivers them (none has been heard for " in text for text in warnings), warnings
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
    worker.wait_said("broker.back")
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
    gate = threading.Event()
    them.answers["/slow"] = held(gate)
    worker = cluster.callbacks(settings={**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "300"})
    owe(account.tenant_id, [them.url("/slow")])
    wait_until(lambda: them.at("/slow"), why="it is being sent")
    with postgres_down():
        gate.set()
        wait_until(lambda: not them.waiting(), why="it is answered while nobody can record it")
    lease_runs_out()  # of who may still try to
    wait_until(
        patiently(lambda: Callback.objects.filter(state="delivered").count() == 1), 90, why="it is delivered"
    )
    assert len(set(them.ids("/slow"))) == 1
    assert worker.alive


def test_it_stops_while_one_hangs_and_gives_back(cluster: Cluster, account: Account, them: Receivers) -> None:
    """TERM while one hangs, as it would for an hour: the process ends, and the next one goes on, long before
    the lease is over. (How soon it ends is measured: mark 16.)"""
    them.answers["/h"] = hang()
    settings = {**OPEN, "GANTRY_CALLBACK_TIMEOUT_S": "3600", "GANTRY_CALLBACK_LEASE_S": "7200"}
    worker = cluster.callbacks(settings=settings)
    owe(account.tenant_id, [them.url("/h")])
    wait_until(lambda: them.at("/h"), why="it is being sent")
    assert worker.terminate() == 0
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
            lease_runs_out()
            current[0] = cluster.callbacks(wait=False, settings=OPEN)
        connection.close()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        runs = {}
        for number in range(40):
            path = f"/r/{number}"
            runs[path] = submit(account.tenant_id, "sleep 0.1", callback_url=them.url(path, number % 7))
            time.sleep(0.1)  # pace: the load
        killer.join(limit(120))
        assert not killer.is_alive()
    finally:
        stopping.set()
    wait_final(*runs.values())
    wait_states(delivered=80)
    for path, run_id in runs.items():
        assert_told(them, run_id, path)
    assert Run.objects.count() == 40
    assert_invariants(cluster)
