"""Fault 25: a rolling upgrade. What runs and what waits outlives the worker, the release and the launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    begins,
    ledger_command,
    open_ledger,
)
from tests.support.ledger import wait_begun
from tests.support.machine import launcher, started
from tests.support.releases import make_release
from tests.support.waiting import wait_until
from workers import services
from workers.launcher import control
from workers.models import Attempt, Node, Run
from workers.vocabulary.specs import ProcessSpec
from workers.vocabulary.states import Reason, State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Upgrades take seconds under load: no node is lost meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    cluster.env["GANTRY_DB_POOL"] = "3"  # fewer than runs: none is kept while a run is watched


def test_a_new_release_takes_over_what_runs_and_what_waits(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a TERM that harms what runs or loses what was handed over, and a second execution after it."""
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    old = cluster.node(cpus=0.3)
    wait = f"while test -e {gate}; do sleep 0.05; done; echo after"
    running = {
        name: submit(account.tenant_id, ledger_command(ledger, name, wait, code=4))
        for name in ("a", "b", "c")
    }
    for run_id in running.values():
        wait_started(run_id)
    waiting = {
        f"q{number}": submit(account.tenant_id, ledger_command(ledger, f"q{number}")) for number in range(6)
    }
    home = cluster.folder / "n1"
    shims = {name: started(home, run_id).shim_pid for name, run_id in running.items()}
    before = launcher(home)
    assert old.terminate() == 0
    assert Node.objects.get(name="n1").detached
    assert Run.objects.filter(state=State.RUNNING).count() == len(running)
    waiting["q6"] = submit(account.tenant_id, ledger_command(ledger, "q6"))
    cluster.node(cpus=0.3, python_path=make_release(cluster.folder, "99.1"))
    assert Node.objects.get(name="n1").version == "99.1"
    for name, run_id in running.items():
        _wait_epoch(run_id, 2)
        assert started(home, run_id).shim_pid == shims[name]
    after = launcher(home)
    assert before is not None
    assert after is not None
    assert before.pid == after.pid, "the launcher is of the same version: it stays"
    assert set(begins(ledger)) == set(running)
    gate.unlink()
    for ended in wait_final(*running.values(), *waiting.values()):
        assert (ended.attempt, ended.crashes) == (1, 0)
    for name, run_id in running.items():
        assert run(run_id).exit_code == 4
        assert output(run_id) == f"out-{name}\nafter\n".encode()
    for name, run_id in waiting.items():
        assert_truth(ledger, name, run_id)
    assert_once(ledger, running | waiting)
    assert_invariants(cluster)


def _wait_epoch(run_id: int, epoch: int) -> None:
    wait_until(lambda: run(run_id).lease_epoch == epoch, why=f"run {run_id} is adopted")


def test_a_new_launcher_takes_over_live_runs_and_the_old_one_takes_them_back(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches commands that die with their launcher's version, or that the next launcher cannot stop."""
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    home = cluster.folder / "n1"
    wait = f"while test -e {gate}; do sleep 0.05; done; echo after"
    worker = cluster.node(GANTRY_WAIT_BROKER="0")
    kept = submit(account.tenant_id, ledger_command(ledger, "kept", wait, code=4))
    killed = submit(account.tenant_id, ledger_command(ledger, "killed", "trap '' TERM; sleep 600"), grace_s=1)
    for run_id in (kept, killed):
        wait_started(run_id)
    wait_begun(ledger, "kept", "killed")
    shims = [started(home, run_id).shim_pid for run_id in (kept, killed)]
    newer = make_release(cluster.folder, "99.2", launcher_protocol=control.PROTOCOL + 1)
    for epoch, tree, version in ((2, newer, control.PROTOCOL + 1), (3, None, control.PROTOCOL)):
        before = launcher(home)
        assert worker.terminate() == 0
        worker = cluster.node(python_path=tree, GANTRY_WAIT_BROKER="0")
        for run_id in (kept, killed):
            _wait_epoch(run_id, epoch)
        after = launcher(home)
        assert before is not None
        assert after is not None
        assert (after.version, after.pid != before.pid) == (version, True)
        assert [started(home, run_id).shim_pid for run_id in (kept, killed)] == shims
        assert sorted(after.live) == sorted(f"{run_id}-1" for run_id in (kept, killed))
    assert services.cancel(account.tenant_id, killed).accepted
    (ended,) = wait_final(killed)
    assert (ended.state, ended.attempt) == (State.CANCELLED, 1)
    gate.unlink()
    (ended,) = wait_final(kept)
    assert (ended.exit_code, ended.attempt) == (4, 1)
    assert output(kept) == b"out-kept\nafter\n"
    assert begins(ledger) == {"kept": 1, "killed": 1}
    assert_once(ledger, {"kept": kept, "killed": killed})
    assert_invariants(cluster)


def test_an_old_worker_leaves_a_newer_spec_to_a_newer_worker(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a run that fails, is lost or is executed wrongly because a node is not yet upgraded.

    And after a step back the old worker brings to its end what the new one has started.
    """
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    newer = ProcessSpec.VERSION + 1
    wait = f"while test -e {gate}; do sleep 0.05; done; echo after"
    future = submit(account.tenant_id, ledger_command(ledger, "future", wait), retries=1)
    Run.objects.filter(pk=future).update(spec={**run(future).spec, "version": newer, "unheard_of": True})
    old = cluster.node(GANTRY_WAIT_BROKER="0")
    wait_until(lambda: run(future).not_before is not None, why="the old worker gives it back")
    row = run(future)
    assert (row.state, row.retries_left, row.finished_at) == (State.PENDING, 1, None)
    assert f"has version {newer}" in row.message
    assert "upgrade the worker" in row.message
    told = services.explain(account.tenant_id, future)["reasons"]
    assert "upgrade the worker" in str(told)
    present = submit(account.tenant_id, ledger_command(ledger, "present"))
    wait_final(present)
    assert begins(ledger) == {"present": 1}
    assert Attempt.objects.get(run_id=future, number=row.attempt).reason == Reason.DROPPED
    assert old.terminate() == 0
    new = cluster.node(
        python_path=make_release(cluster.folder, "99.3", process_spec=newer), GANTRY_WAIT_BROKER="0"
    )
    Run.objects.filter(pk=future).update(not_before=None)  # do not wait for it
    wait_started(future)
    wait_begun(ledger, "future")
    shim = started(cluster.folder / "n1", future, run(future).attempt).shim_pid
    assert new.terminate() == 0
    cluster.node(GANTRY_WAIT_BROKER="0")
    attempt = run(future).attempt
    wait_until(lambda: Node.objects.get(name="n1").version != "99.3", why="the old release is back")
    assert started(cluster.folder / "n1", future, attempt).shim_pid == shim
    gate.unlink()
    (ended,) = wait_final(future)
    assert (ended.state, ended.attempt, ended.retries_left) == (State.SUCCEEDED, attempt, 1)
    assert output(future) == b"out-future\nafter\n"
    assert begins(ledger) == {"present": 1, "future": 1}
    assert_invariants(cluster)
