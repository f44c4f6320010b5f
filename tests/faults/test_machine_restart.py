"""A worker that is told to stop while it still starts, as an impatient supervisor would do."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers.models import Node
from workers.vocabulary.states import State


def test_told_to_stop_while_it_starts(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a stop that is taken for a crash: after a few of them what runs would be under suspicion of
    killing its workers, and be stopped for it."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # a restart on a busy machine is no lost node
    go = shared_folder / "go"
    run_id = submit(account.tenant_id, f"until test -e {go}; do sleep 0.1; done; exit 3")
    first = cluster.node()
    node = Node.objects.get(name="n1")
    wait_started(run_id)
    assert first.terminate() == 0
    for delay_s in (0.0, 0.2):
        before = Node.objects.get(pk=node.pk).incarnation
        worker = cluster.node(wait=False)
        wait_until(lambda: Node.objects.get(pk=node.pk).incarnation > before, why="it registers")  # noqa: B023
        time.sleep(delay_s)  # pace: how far its start has come
        assert worker.terminate() == 0, worker.text()[-2000:]
        assert Node.objects.get(pk=node.pk).detached, "it went without a goodbye"
    assert run(run_id).crashes == 0
    cluster.node()
    go.touch()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 3, 1)
    assert_invariants(cluster)
