"""Fault 17: the time of day jumps, on a node, on an API's machine, on the database's.

Leases, deadlines and backoff are counted by the database's clock or by clocks that no jump moves. So a node
an hour ahead neither loses its runs nor takes others', and nothing is killed early or late.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection

from tests.support.clock import Clock
from tests.support.cluster import Cluster, pids_under
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.http import TaskClient
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node, Run
from workers.vocabulary.states import Reason, State

HOUR = 3600.0


def _database_now() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def _wait_beats(more: int) -> None:
    """Wait until the node has beaten so often again: it has looked at its clock since."""
    before = Node.objects.get(name="n1").beats
    wait_until(lambda: Node.objects.get(name="n1").beats >= before + more, why=f"{more} more beats")


def _seconds(later: Any, earlier: Any) -> float:
    return float((later - earlier).total_seconds())


def test_the_clock_is_really_wrong(cluster: Cluster) -> None:
    """Catches tests of this file that prove nothing, since worker or launcher see the right time."""
    clock = Clock(cluster.folder / "clock")
    clock.set(HOUR)
    ask = "import sys, time; print(time.time(), time.monotonic(), sys.executable)"
    told = subprocess.run(
        [sys.executable, "-c", ask], env=clock.env, capture_output=True, check=True, text=True
    )
    wrong, counting, program = told.stdout.split()
    assert abs(float(wrong) - time.time() - HOUR) < 120
    assert abs(float(counting) - time.monotonic()) < 120
    script = cluster.folder / "ask.py"
    script.write_text("import time; print(time.time())")
    told = subprocess.run(
        [program, "-I", "-S", "-X", "utf8", str(script)], env={}, capture_output=True, check=True, text=True
    )
    assert abs(float(told.stdout) - time.time() - HOUR) < 120
    cluster.node(**clock.env)
    programs = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids_under(cluster.folder)]
    assert any("clock/launch.py" in text and "/launcher" in text for text in programs), programs


def test_clock_of_a_node_jumps_while_it_works(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a lease, deadline, grace period, backoff or guard that is counted by the node's time of day."""
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "120", "GANTRY_LEASE_S": "60"}
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    clock = Clock(cluster.folder / "clock")
    node = cluster.node(GANTRY_RETRY_BASE_S="1", **clock.env)
    began = _database_now()
    body = f"while test -e {gate}; do sleep 0.05; done"
    # Less than the hour by which the clock will jump, and far more than this test takes.
    steady = submit(account.tenant_id, ledger_command(ledger, "steady", body, code=3), timeout_s=1800)
    limited = submit(account.tenant_id, "trap '' TERM; while :; do sleep 0.2; done", timeout_s=4, grace_s=1)
    waits = submit(account.tenant_id, "true", constraints={"rack_id": ["r9"]}, expires_in_s=3)
    for run_id in (steady, limited):
        wait_started(run_id)
    clock.set(HOUR)
    retried = submit(account.tenant_id, "exit 7", retries=1)
    wait_final(waits)
    _wait_beats(3)
    assert run(steady).state == State.RUNNING, "killed early"
    clock.set(-HOUR)
    wait_final(limited, retried)
    _wait_beats(3)
    gate.unlink()
    wait_final(steady)
    assert_truth(ledger, "steady", steady, code=3)
    assert_once(ledger, {"steady": steady})
    assert run(steady).lease_epoch == run(limited).lease_epoch == 1, "a lease ran out"
    ended = run(limited)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.TIMEOUT)
    assert run(waits).reason == Reason.EXPIRED
    assert _seconds(run(waits).finished_at, run(waits).created_at) >= 3
    first, second = Attempt.objects.filter(run_id=retried).order_by("number")
    waited = _seconds(second.claimed_at, first.finished_at)
    assert waited >= 0.9, "the backoff is one second, give or take a tenth"
    for row in Attempt.objects.all():
        times = [began, row.claimed_at, row.started_at, row.finished_at, _database_now()]
        assert None not in times
        assert times == sorted(times), f"a time of the node was stored: {times}"
    assert node.alive
    assert_invariants(cluster)


def test_nodes_that_disagree_about_the_time(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a node that takes another's runs for lost, and one that times out what it adopts: it reads the
    start from the database."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # a restart on a busy machine is no lost node
    ledger = open_ledger(shared_folder)
    ahead, behind = Clock(cluster.folder / "ahead"), Clock(cluster.folder / "behind")
    ahead.set(HOUR)
    behind.set(-HOUR)
    workers = {
        "right": cluster.node("right", attributes="rack_id=right"),
        "wrong": cluster.node("wrong", attributes="rack_id=wrong", **behind.env),
    }
    gate = shared_folder / "gate"
    gate.touch()
    names = {}
    for name in workers:
        command = ledger_command(ledger, name, f"while test -e {gate}; do sleep 0.05; done")
        names[name] = submit(account.tenant_id, command, constraints={"rack_id": [name]}, timeout_s=600)
        wait_started(names[name])
    for name, worker in workers.items():
        worker.kill()
        cluster.node(name, attributes=f"rack_id={name}", **ahead.env)
    for name, run_id in names.items():
        wait_until(lambda: run(run_id).lease_epoch == 2, why=f"{name} is adopted")  # noqa: B023
    gate.unlink()
    wait_final(*names.values())
    for name, run_id in names.items():
        assert_truth(ledger, name, run_id)
        assert (run(run_id).attempt, run(run_id).lease_epoch) == (1, 2)
    assert_once(ledger, names)
    assert_invariants(cluster)


def test_api_with_a_wrong_clock(cluster: Cluster, account: Account) -> None:
    """Catches a submission that has expired before it was made, and nodes called silent by mistake."""
    clock = Clock(cluster.folder / "clock")
    clock.set(2 * 24 * HOUR)
    cluster.node()
    with TaskClient(cluster.api(**clock.env), account) as client:
        wait_final(done := client.submit("true"))
        large = client.submit("true", resources={"cpu": 16, "mem": 256})
        assert run(done).state == State.SUCCEEDED
        assert [item["code"] for item in client.explain(large)["reasons"]] == ["cpu_total"]
        heard = {"ready": 1, "draining": 0, "silent": 0}
        wait_until(lambda: client.ready()[1]["nodes"] == heard, why="no node is called silent")
        assert client.ready()[0] == 200
        running = client.submit("sleep 600")
        wait_started(running)
        assert client.explain(running)["reasons"][0]["code"] == "running"
        for run_id in (large, running):
            client.http.post("/v1/tasks/kill", params={"taskId": run_id})
    assert_invariants(cluster)


def test_clock_of_the_database_jumps_ahead(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a reconciler that believes one look: for a moment every heartbeat and lease is an hour old.

    A jump of the server's clock ahead is all its stored times going back: that is what this test does.
    """
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "60", "GANTRY_HEARTBEAT_S": "4", "GANTRY_LEASE_S": "30"}
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    cluster.node(GANTRY_RECONCILE_S="0.02")
    body = f"while test -e {gate}; do sleep 0.05; done"
    names = {f"r{n}": submit(account.tenant_id, ledger_command(ledger, f"r{n}", body)) for n in range(4)}
    for run_id in names.values():
        wait_started(run_id)
    for _ in range(4):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE workers_node SET heartbeat_at = heartbeat_at - interval '1 hour'")
            cursor.execute("UPDATE workers_run SET lease_until = lease_until - interval '1 hour'")
        wait_until(
            lambda: Node.objects.get(name="n1").heartbeat_at > _database_now() - timedelta(seconds=30),
            why="the node is heard again",
        )
    gate.unlink()
    wait_final(*names.values())
    assert Run.objects.filter(pk__in=names.values(), state=State.SUCCEEDED, attempt=1).count() == len(names)
    assert_once(ledger, names)
    for name, run_id in names.items():
        assert_truth(ledger, name, run_id)
    assert services.explain(account.tenant_id, names["r0"])["state"] == State.SUCCEEDED
    assert_invariants(cluster)
