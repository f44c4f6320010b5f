"""The guard's clock under faults: late words, old news, little time, and a reconciler that acts on old news.

Together they see to it that an attempt is dead before the next one begins, wherever a worker stood still.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from tests.support.cluster import Cluster
from tests.support.engine import submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    ledger_command,
    left_over,
    open_ledger,
)
from tests.support.machine import launcher_pid, signal_all
from tests.support.waiting import wait_until
from tests.unit.launcher.launching import Node, node
from workers.launcher import control
from workers.models import Node as NodeRow
from workers.models import RunEvent
from workers.runtimes.launched.client import LauncherError

__all__ = ["node"]  # the fixture


@pytest.mark.account
def test_a_late_word_does_not_hold_the_guard_back(node: Node) -> None:
    """A worker stood still between its heartbeat and its word to the guard.

    Catches a guard that counts from when it was told instead of from when the database was.
    """
    name = node.start("sleep 600")
    # From now on it would be half an hour, longer than anybody waits here.
    node.client.renew(1800.0, 3600.0, control.boottime() - 1799.5)
    assert node.end(name).killed == "guard"


def test_an_old_word_after_a_new_one_counts_for_nothing(node: Node) -> None:
    """Catches a guard that goes backwards, and kills, because of a message that was delayed."""
    now = control.boottime()
    node.client.renew(600, 1200, now)
    node.client.renew(600, 1200, now - 1000)
    age = node.client.ensure().renewed_age
    assert age is not None
    assert age < 900


def test_nothing_is_started_on_old_news(node: Node) -> None:
    """Catches a thawed worker whose heartbeat came first: the guard rests again, the attempt was given up."""
    now = control.boottime()
    node.client.renew(600, 1200, now)
    with pytest.raises(LauncherError, match="renewal") as refused:
        node.client.start(replace(node.request("true"), as_of=now - 601))
    assert refused.value.code == "fenced"
    assert node.finish(replace(node.request("true"), as_of=now)).code == 0
    assert node.finish(replace(node.request("true", fence=False), as_of=now - 601)).code == 0


@pytest.mark.account
def test_who_ignores_term_is_dead_before_the_node_counts_as_lost(node: Node) -> None:
    """Catches a grace period that reaches beyond the moment at which another node may begin.

    What it is granted is written down with the request to stop: a busy machine makes that late, and then it
    is granted nothing.
    """
    node.client.renew(600, 900, control.boottime())
    name = node.start("trap '' TERM; while :; do sleep 0.1; done")
    at = control.boottime()
    node.client.renew(1, 5.5, at)
    assert node.end(name).killed == "guard"
    stopped = control.stop_request(control.read_stop(control.run_dir(str(node.control), name)))
    assert stopped is not None
    why, asked, deadline = stopped
    assert why == "guard"
    assert deadline in (asked, min(deadline, at + 5.5)), (
        f"KILL {deadline - at:.1f} s after the renewal, another may begin after 5.5 s"
    )


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_start_that_was_given_up_is_not_made_up_for(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The launcher stands still when it is asked to start, and goes on after the run was given back.

    Catches a launcher that carries out late what has been begun anew meanwhile. (Half a minute of silence.)
    """
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "300"
    worker = cluster.node("n1")
    ledger = open_ledger(shared_folder)
    warm = submit(account.tenant_id, ledger_command(ledger, "warm"))
    wait_final(warm)
    launcher = launcher_pid(cluster.folder / "n1")
    signal_all([launcher], signal.SIGSTOP)
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", "sleep 1", code=3))
    wait_until(lambda: "run.given_back" in worker.text(), 120, why="the worker gives it back")
    signal_all([launcher], signal.SIGCONT)
    (ended,) = wait_final(run_id, timeout_s=60)
    assert (ended.exit_code, ended.attempt) == (3, 2)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id, 3)
    # The late order made a folder again, after the cleanup; the node looks for such every minute.
    wait_until(lambda: not left_over(cluster), 90, why="the next search removes what the late order left")
    assert_invariants(cluster)


def test_a_node_that_was_heard_again_keeps_its_runs(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The reconciler finds a node silent; before it acts, the node is back and runs something.

    Catches a reconciler that closes, and begins elsewhere, what runs on a healthy node.
    """
    mark = cluster.folder / "held"
    held = {"GANTRY_CRASH_AT": "reconciler.before_close", "GANTRY_CRASH_ONCE": str(mark)}
    calm = {"GANTRY_HEARTBEAT_S": "5", "GANTRY_NODE_LOST_AFTER_S": "60", "GANTRY_RECONCILE_S": "999"}
    cluster.node("n1", attributes="rack_id=r1", settings=calm)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", body, code=3), retries=0)
    wait_started(run_id)
    cluster.node(
        "n2",
        attributes="rack_id=r2",
        settings={**held, "GANTRY_CRASH_HOW": "hold", "GANTRY_WAIT_BROKER": "0"},
    )
    long_ago = timezone.now() - timedelta(hours=1)

    def found_silent() -> bool:
        NodeRow.objects.filter(name="n1").update(heartbeat_at=long_ago)
        return mark.exists()

    wait_until(found_silent, why="the reconciler finds the node silent")
    before = NodeRow.objects.get(name="n1").heartbeat_at
    wait_until(lambda: NodeRow.objects.get(name="n1").heartbeat_at > before, why="the node is heard again")
    Path(f"{mark}.go").touch()
    round_at = NodeRow.objects.get(name="n2").heartbeat_at
    wait_until(lambda: NodeRow.objects.get(name="n2").heartbeat_at > round_at, why="n2 goes on")
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.exit_code, ended.attempt) == (3, 1)
    assert not RunEvent.objects.filter(by="reconciler").exists()
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id, 3)
    assert_invariants(cluster)
