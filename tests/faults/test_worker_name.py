"""One worker per name, and a worker's end while the broker is away."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.local.servers import EmbeddedRedis
from tests.support.beats import wait_beat
from tests.support.cluster import Cluster, Process
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.machine import started, wait_dead
from tests.support.waiting import wait_until
from workers.models import Node
from workers.vocabulary.states import State


def _refused(process: Process, *words: str) -> None:
    """The worker ends by itself, and says why in words."""
    wait_dead(process)
    assert process.popen.returncode == 1
    text = " ".join(process.text().split())
    for word in words:
        assert word in text
    assert "Traceback" not in text


def test_two_workers_of_one_name(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches two workers that share a name: they would adopt each other's runs.

    Another one may have a name whose worker has left out three heartbeats: they are rare here.
    """
    cluster.env |= {
        "GANTRY_NODE_LOST_AFTER_S": "120",
        "GANTRY_HEARTBEAT_S": "8",
        "GANTRY_LEASE_S": "40",
    }
    first = cluster.node("n1")
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    same = cluster.node("n1", wait=False)
    other = cluster.node("n1", wait=False, folder=cluster.folder / "other")
    _refused(same, f"another worker (process {first.pid}) uses the folder", "another GANTRY_NODE_NAME")
    _refused(other, "a worker named n1 was heard", "give this one another GANTRY_NODE_NAME")
    run_id = submit(
        account.tenant_id, ledger_command(ledger, "a", f"while test -e {gate}; do sleep 0.05; done", code=5)
    )
    wait_started(run_id)
    first.kill()
    _refused(
        cluster.node("n1", wait=False, folder=cluster.folder / "other"),
        "node n1 belongs to a worker with another data folder, 1 runs are there",
        "use that folder or another name, or wait",
    )
    assert Node.objects.get(name="n1").incarnation == 1
    assert (run(run_id).attempt, run(run_id).lease_epoch) == (1, 1)
    cluster.node("n1", GANTRY_WAIT_BROKER="0")
    gate.unlink()
    wait_final(run_id)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id, 5)
    assert_invariants(cluster)


def test_a_frozen_worker_whose_name_was_taken(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a worker that goes on under a name that is not its own any more."""
    ledger = open_ledger(shared_folder)
    first = cluster.node("n1")
    first.freeze()
    wait_until(
        lambda: _takes_over(cluster), 90, every_s=0.2, why="another one may take the name of a silent node"
    )
    second = cluster.processes[-1]
    first.thaw()
    wait_dead(first)
    assert first.popen.returncode == 1
    assert "agent.superseded" in first.text()
    wait_beat("n1")
    run_id = submit(account.tenant_id, ledger_command(ledger, "a"))
    wait_final(run_id)
    assert second.alive
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id)
    assert_invariants(cluster)


def _takes_over(cluster: Cluster) -> bool:
    """Try once to start a worker of the name on another folder."""
    before = Node.objects.get(name="n1").incarnation
    second = cluster.node("n1", wait=False, folder=cluster.folder / "other")
    wait_until(
        lambda: not second.alive or Node.objects.get(name="n1").incarnation > before, why="it has decided"
    )
    return second.alive


@contextmanager
def _redis() -> Iterator[EmbeddedRedis]:
    """A broker for one worker only."""
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:
        server = EmbeddedRedis(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_worker_without_its_broker_can_be_stopped(
    cluster: Cluster, account: Account, shared_folder: Path, how: str
) -> None:
    """Catches a shutdown that waits for the broker, or for what runs: Celery's own would do both."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    with _redis() as broker:
        worker = cluster.node(REDIS_URL=broker.url)
        body = f"while test -e {gate}; do sleep 0.05; done"
        run_id = submit(account.tenant_id, ledger_command(ledger, "a", body, code=5))
        wait_started(run_id)
        shim = started(cluster.folder / "n1", run_id).shim_pid
        if how == "killed":
            broker.kill()
        else:
            assert broker.pid is not None
            subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(broker.pid)], check=True)
        assert worker.terminate() == 0, "and neither of the two was waited for: they do not come"
        assert run(run_id).state == State.RUNNING
    assert Node.objects.get(name="n1").detached, "it said goodbye"
    cluster.node(GANTRY_WAIT_BROKER="0")
    wait_until(lambda: run(run_id).lease_epoch == 2, why="the next worker adopts it")
    assert started(cluster.folder / "n1", run_id).shim_pid == shim
    gate.unlink()
    wait_final(run_id)
    assert run(run_id).crashes == 0
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id, 5)
    assert_invariants(cluster)
