"""Fault 3: a worker is frozen and thawed. What it writes then changes nothing; attempts never overlap."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.beats import (
    end_open_transactions,
    leased,
    now,
    recorded_by,
    wait_beat,
    wait_let_go,
    wait_retried,
)
from tests.support.cluster import Cluster, Process, frozen
from tests.support.engine import output, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    ledger_command,
    open_ledger,
)
from tests.support.ledger import assert_no_overlap, ticking_command, traces, wait_begun
from tests.support.machine import alive, commands, launcher_pid, signal_all, started, wait_for_file
from tests.support.waiting import wait_until
from workers.launcher import control
from workers.models import Attempt, Node, Run
from workers.scheduling.explain import explain_run
from workers.vocabulary.states import Reason, State

#: The guard of a node that will be frozen kills early; the one of the survivor late, whatever the load.
_VICTIM = {"GANTRY_NODE_LOST_AFTER_S": "14", "GANTRY_GUARD_MARGIN_S": "7"}
_SURVIVOR = {"GANTRY_NODE_LOST_AFTER_S": "14", "GANTRY_GUARD_MARGIN_S": "1", "GANTRY_WAIT_BROKER": "0"}


def test_frozen_beyond_its_lease(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches somebody else who touches a run because only its lease ran out, and work killed too early."""
    cluster.env |= {"GANTRY_LEASE_S": "2", "GANTRY_NODE_LOST_AFTER_S": "60"}
    worker = cluster.node("n1", attributes="rack_id=r1")
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    long = submit(account.tenant_id, ledger_command(ledger, "long", body, code=5))
    other = shared_folder / "other"
    other.touch()
    body = f"while test -e {other}; do sleep 0.05; done"
    meanwhile = submit(account.tenant_id, ledger_command(ledger, "meanwhile", body))
    wait_started(long)
    wait_started(meanwhile)
    cluster.node("n2", attributes="rack_id=r2", GANTRY_WAIT_BROKER="0")
    with frozen(worker):
        wait_until(lambda: not leased(long), why="the lease runs out")
        wait_beat("n2")
        assert Run.objects.filter(state=State.RUNNING, node__name="n1").count() == 2
        other.unlink()
        wait_until(lambda: "end meanwhile" in ledger.read_text(), why="one of them ends meanwhile")
    wait_until(lambda: leased(long), why="it renews its lease")
    gate.unlink()
    for ended in wait_final(long, meanwhile):
        assert (ended.attempt, ended.node and ended.node.name) == (1, "n1")
    assert_once(ledger, {"long": long, "meanwhile": meanwhile})
    assert_truth(ledger, "long", long, 5)
    assert_truth(ledger, "meanwhile", meanwhile)
    assert_invariants(cluster)


def test_what_waits_for_a_frozen_worker_is_not_explained_with_redis(
    cluster: Cluster, account: Account
) -> None:
    """Catches "look at Redis" for as long as a lease: its worker says nothing, of the broker neither."""
    cluster.env |= {"GANTRY_LEASE_S": "6", "GANTRY_NODE_LOST_AFTER_S": "120"}
    worker = cluster.node("n1")

    def told(run_id: int) -> list[str]:
        reasons = explain_run(Run.objects.get(pk=run_id))["reasons"]
        assert "Redis" not in str(reasons), reasons
        return [f"{item['code']}: {item['message']}" for item in reasons]

    wait_until(lambda: Node.objects.get().broker_ok_at, why="it has told that the broker answers")
    with frozen(worker):
        run_id = submit(account.tenant_id, "true")
        wait_until(
            lambda: any("silent: node n1 has been silent for" in item for item in told(run_id)),
            why="the silence is told",
            see=lambda: told(run_id),
        )
    wait_final(run_id)
    assert_invariants(cluster)


def test_frozen_beyond_the_loss_of_its_node(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a guard that comes late, or spares who ignores TERM; a thawed worker that still has a say."""
    victim = cluster.node("n1", attributes="rack_id=r1", settings=_VICTIM)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    where = {"rack_id": ["r1", "r2"]}
    names = {"mild": False, "deaf": True}
    runs = {
        name: submit(
            account.tenant_id,
            ticking_command(ledger, name, while_exists=gate, deaf=deaf),
            constraints=where,
            retries=1,
        )
        for name, deaf in names.items()
    }
    runs["once"] = submit(account.tenant_id, ticking_command(ledger, "once", while_exists=gate))
    for run_id in runs.values():
        wait_started(run_id)
    victim.freeze()
    end_open_transactions()
    survivor = cluster.node("n2", attributes="rack_id=r2", settings=_SURVIVOR)
    for name in names:
        wait_retried(runs[name])
        assert_no_overlap(ledger, name, attempts=2)
    (given_up,) = wait_final(runs["once"])
    assert (given_up.state, given_up.reason) == (State.FAILED, Reason.UNREACHABLE)
    assert "node n1 has been silent for" in given_up.message
    before = {name: recorded_by(run_id) for name, run_id in runs.items()}
    moment = now()
    victim.thaw()
    wait_beat("n1", moment)
    wait_let_go(victim, len(runs))
    assert {name: recorded_by(run_id) for name, run_id in runs.items()} == before
    gate.unlink()
    for name in names:
        (ended,) = wait_final(runs[name])
        assert (ended.state, ended.attempt, ended.node and ended.node.name) == (State.SUCCEEDED, 2, "n2")
        assert recorded_by(runs[name]) == [(1, "n1"), (1, "reconciler"), (2, "n2"), (2, "n2")]
        assert Attempt.objects.get(run_id=runs[name], number=1).reason == Reason.UNREACHABLE
        assert_no_overlap(ledger, name, attempts=2)
        assert output(runs[name]) == f"out-{name}\n".encode()
    assert_once(ledger, runs)
    assert_invariants(cluster)
    assert victim.alive
    assert survivor.alive


def test_a_suspended_machine(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Everything on a node stands still, guard and commands too, until its work is done elsewhere.

    Nobody can prevent that both run for a moment then. Catches a guard that grants a grace period although
    the other attempt has begun, and a second truth.
    """
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "14"
    node = cluster.node("n1", attributes="rack_id=r1", GANTRY_GUARD_MARGIN_S="7")
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    run_id = submit(account.tenant_id, ticking_command(ledger, "a", while_exists=gate, deaf=True), retries=1)
    wait_started(run_id)
    wait_begun(ledger, "a")
    home = cluster.folder / "n1"
    shim = started(home, run_id).shim_pid
    processes = [shim, *commands(shim)]
    machine = [launcher_pid(home), *processes]
    signal_all([node.pid, *machine], signal.SIGSTOP)
    end_open_transactions()
    cluster.node("n2", GANTRY_GUARD_MARGIN_S="1", GANTRY_WAIT_BROKER="0")
    wait_retried(run_id)
    wait_until(lambda: len(traces(ledger, "a")) == 2, why="the second attempt begins")
    before = recorded_by(run_id)
    # The worker comes last: else it may be the one that ends the attempt, and clears it up.
    signal_all(machine, signal.SIGCONT)
    wait_until(lambda: not any(map(alive, processes)), why="the guard kills what it finds")
    stopped = control.stop_request(control.read_stop(control.run_dir(str(home / "launcher"), f"{run_id}-1")))
    assert stopped is not None
    why, asked, deadline = stopped
    assert (why, deadline - asked) == ("guard", 0.0), "it was granted a grace period"
    node.thaw()
    wait_let_go(node, 1)
    _, second = traces(ledger, "a")
    assert recorded_by(run_id) == before
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.attempt, ended.node and ended.node.name) == (State.SUCCEEDED, 2, "n2")
    assert traces(ledger, "a")[1].ended
    assert second.attempt == f"{run_id}-2"
    assert output(run_id) == b"out-a\n"
    assert_invariants(cluster)


#: Where the worker stops -> does the command of the first attempt begin?
_FROZEN_AT = {
    "agent.after_claim": False,
    "runner.before_prepare": False,
    "runner.before_start": False,
    "runner.before_started_commit": True,
    "runner.after_exit": True,
    "runner.before_finish_commit": True,
}


def test_frozen_in_the_middle_of_a_step(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a thawed worker that goes on where it stood: starts the command, or writes its end."""
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    workers: dict[str, Process] = {}
    runs: dict[str, int] = {}
    for number, (step, begins) in enumerate(_FROZEN_AT.items()):
        name = f"f{number}"
        mark = cluster.folder / f"{name}.frozen"
        workers[name] = cluster.node(
            name,
            attributes=f"rack_id={name}",
            wait=False,
            GANTRY_CRASH_AT=step,
            GANTRY_CRASH_ONCE=str(mark),
            GANTRY_CRASH_HOW="freeze",
            settings=_VICTIM,
        )
        command = ticking_command(ledger, name, while_exists=gate, first=7 if begins else None)
        runs[name] = submit(account.tenant_id, command, constraints={"rack_id": [name, "r"]}, retries=1)
    for name in workers:
        wait_for_file(cluster.folder / f"{name}.frozen", 120)
    end_open_transactions()
    cluster.node("survivor", attributes="rack_id=r", settings=_SURVIVOR)
    for run_id in runs.values():
        wait_retried(run_id)
    before = {name: recorded_by(run_id) for name, run_id in runs.items()}
    moment = now()
    for worker in workers.values():
        worker.thaw()
    for name, worker in workers.items():
        wait_beat(name, moment)
        wait_let_go(worker, 1)
    assert {name: recorded_by(run_id) for name, run_id in runs.items()} == before
    gate.unlink()
    for (name, run_id), begins in zip(runs.items(), _FROZEN_AT.values(), strict=True):
        (ended,) = wait_final(run_id)
        assert (ended.state, ended.attempt, ended.exit_code) == (State.SUCCEEDED, 2, 0), name
        assert_no_overlap(ledger, name, attempts=2 if begins else 1)
        assert traces(ledger, name)[-1].attempt == f"{run_id}-2"
        assert output(run_id) == f"out-{name}\n".encode()
    assert_invariants(cluster)
