"""Fault 3: a worker is frozen and thawed. What it writes then changes nothing; attempts never overlap."""

from __future__ import annotations

from pathlib import Path

from django.db import connection

from tests.support.cluster import Cluster, Process, frozen, wait_until
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import (
    assert_invariants,
    assert_once,
    assert_truth,
    ledger_command,
    open_ledger,
)
from tests.support.ledger import assert_no_overlap, ticking_command, traces
from tests.support.machine import wait_for_file
from workers.models import Attempt, Node, Run, RunEvent
from workers.states import Reason, State

#: The guard of a node that will be frozen kills early; the one of the survivor late, whatever the load.
_VICTIM = {"GANTRY_NODE_LOST_AFTER_S": "8", "GANTRY_GUARD_MARGIN_S": "4"}
_SURVIVOR = {"GANTRY_NODE_LOST_AFTER_S": "8", "GANTRY_GUARD_MARGIN_S": "1", "GANTRY_WAIT_BROKER": "0"}


def _beat_since(name: str, moment: object) -> bool:
    return Node.objects.filter(name=name, heartbeat_at__gt=moment).exists()


def _now() -> object:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def _wait_retried(run_id: int) -> None:
    wait_until(lambda: run(run_id).attempt == 2, 40, why=f"run {run_id} is retried elsewhere")
    wait_started(run_id)


def _wait_back(name: str, worker: Process, moment: object, *, lets_go: int) -> None:
    """The thawed worker beats again, and has noticed of so many runs that they are not its own any more."""
    wait_until(lambda: _beat_since(name, moment), why=f"{name} is back")
    wait_until(lambda: worker.text().count("run.left") == lets_go, why=f"{name} lets go of what it had")


def _end_open_transactions() -> None:
    """What the server does after a minute (idle_in_transaction_session_timeout), long before a node is lost.

    A worker that is frozen within a transaction keeps its locks until then.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name = 'gantry-worker' AND state LIKE 'idle in transaction%'"""
        )


def _by(run_id: int) -> list[tuple[int, str]]:
    """Who recorded which transition of a run."""
    return list(RunEvent.objects.filter(run_id=run_id).order_by("id").values_list("attempt", "by"))


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
        wait_until(lambda: not _leased(long), why="the lease runs out")
        beat = _now()
        wait_until(lambda: _beat_since("n2", beat), why="the other node looks around")
        assert Run.objects.filter(state=State.RUNNING, node__name="n1").count() == 2
        other.unlink()
        wait_until(lambda: "end meanwhile" in ledger.read_text(), why="one of them ends meanwhile")
    wait_until(lambda: _leased(long), why="it renews its lease")
    gate.unlink()
    for ended in wait_final(long, meanwhile):
        assert (ended.attempt, ended.node and ended.node.name) == (1, "n1")
    assert_once(ledger, {"long": long, "meanwhile": meanwhile})
    assert_truth(ledger, "long", long, 5)
    assert_truth(ledger, "meanwhile", meanwhile)
    assert_invariants(cluster)


def _leased(run_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT lease_until > now() FROM workers_run WHERE id = %s", [run_id])
        return bool(cursor.fetchone()[0])


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
    _end_open_transactions()
    survivor = cluster.node("n2", attributes="rack_id=r2", settings=_SURVIVOR)
    for name in names:
        _wait_retried(runs[name])
        assert_no_overlap(ledger, name, attempts=2)
    (given_up,) = wait_final(runs["once"])
    assert (given_up.state, given_up.reason) == (State.FAILED, Reason.UNREACHABLE)
    assert "node n1 has been silent for" in given_up.message
    before = {name: _by(run_id) for name, run_id in runs.items()}
    moment = _now()
    victim.thaw()
    _wait_back("n1", victim, moment, lets_go=len(runs))
    assert {name: _by(run_id) for name, run_id in runs.items()} == before
    gate.unlink()
    for name in names:
        (ended,) = wait_final(runs[name])
        assert (ended.state, ended.attempt, ended.node and ended.node.name) == (State.SUCCEEDED, 2, "n2")
        assert _by(runs[name]) == [(1, "n1"), (1, "reconciler"), (2, "n2"), (2, "n2")]
        assert Attempt.objects.get(run_id=runs[name], number=1).reason == Reason.UNREACHABLE
        assert_no_overlap(ledger, name, attempts=2)
        assert output(runs[name]) == f"out-{name}\n".encode()
    assert_once(ledger, runs)
    assert_invariants(cluster)
    assert victim.alive
    assert survivor.alive


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
        wait_for_file(cluster.folder / f"{name}.frozen", 40)
    _end_open_transactions()
    cluster.node("survivor", attributes="rack_id=r", settings=_SURVIVOR)
    for run_id in runs.values():
        _wait_retried(run_id)
    before = {name: _by(run_id) for name, run_id in runs.items()}
    moment = _now()
    for worker in workers.values():
        worker.thaw()
    for name, worker in workers.items():
        _wait_back(name, worker, moment, lets_go=1)
    assert {name: _by(run_id) for name, run_id in runs.items()} == before
    gate.unlink()
    for (name, run_id), begins in zip(runs.items(), _FROZEN_AT.values(), strict=True):
        (ended,) = wait_final(run_id)
        assert (ended.state, ended.attempt, ended.exit_code) == (State.SUCCEEDED, 2, 0), name
        assert_no_overlap(ledger, name, attempts=2 if begins else 1)
        assert traces(ledger, name)[-1].attempt == f"{run_id}-2"
        assert output(run_id) == f"out-{name}\n".encode()
    assert_invariants(cluster)


