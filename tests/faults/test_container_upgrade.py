"""Fault 25 for containers: an old and a new release of the worker take each other's containers over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.containers import container_of, happened, submit_container
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    begins,
    ledger_command,
    open_ledger,
)
from tests.support.releases import make_release
from tests.support.waiting import wait_until
from workers import services
from workers.models import Node, Run
from workers.vocabulary.states import State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Upgrades take seconds under load: no node is lost meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"


def test_a_new_release_takes_containers_over_and_the_old_one_takes_them_back(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a TERM that harms what runs or loses what was handed over; another container afterwards."""
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    wait = f"while test -e {gate}; do sleep 0.05; done; echo after"
    worker = cluster.node(cpus=0.3, settings=engine.env)
    running = {
        name: submit_container(
            account.tenant_id, ledger_command(ledger, name, wait, code=4), share=shared_folder
        )
        for name in ("a", "b")
    }
    killed = submit_container(
        account.tenant_id,
        ledger_command(ledger, "killed", "trap '' TERM; sleep 600"),
        share=shared_folder,
        grace_s=1,
    )
    for run_id in (*running.values(), killed):
        wait_started(run_id)
    waiting = {
        f"q{number}": submit_container(
            account.tenant_id, ledger_command(ledger, f"q{number}"), share=shared_folder
        )
        for number in range(3)
    }
    boxes = {run_id: container_of(engine, run_id)["Id"] for run_id in (*running.values(), killed)}
    newer = make_release(cluster.folder, "99.1")
    for epoch, tree, version in ((2, newer, "99.1"), (3, None, "")):
        assert worker.terminate() == 0
        assert Node.objects.get(name="n1").detached
        assert Run.objects.filter(state=State.RUNNING).count() == 3
        worker = cluster.node(cpus=0.3, python_path=tree, settings=engine.env, GANTRY_WAIT_BROKER="0")
        assert (Node.objects.get(name="n1").version == "99.1") == bool(version)
        for run_id, box in boxes.items():
            _wait_epoch(run_id, epoch)
            found = container_of(engine, run_id)
            assert (found["Id"], found["State"]["Running"]) == (box, True)
    assert services.cancel(account.tenant_id, killed).accepted
    (cancelled,) = wait_final(killed)
    assert (cancelled.state, cancelled.attempt) == (State.CANCELLED, 1)
    gate.unlink()
    for ended in wait_final(*running.values(), *waiting.values()):
        assert (ended.attempt, ended.crashes) == (1, 0)
    for name, run_id in running.items():
        assert run(run_id).exit_code == 4
        assert output(run_id) == f"out-{name}\nafter\n".encode()
        assert happened(engine, run_id)["create"] == 1
    for name, run_id in waiting.items():
        assert_truth(ledger, name, run_id)
    assert begins(ledger) == dict.fromkeys((*running, *waiting, "killed"), 1)
    assert_once(ledger, {**running, **waiting, "killed": killed})
    assert_invariants(cluster, engines=[engine])


def _wait_epoch(run_id: int, epoch: int) -> None:
    wait_until(lambda: run(run_id).lease_epoch == epoch, why=f"run {run_id} is adopted")
