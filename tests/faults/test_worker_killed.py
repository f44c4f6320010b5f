"""Faults 1 and 2: kill -9 of a worker, its launcher, both in both orders, a command without a trace."""

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
from tests.support.machine import alive, commands, kill, launcher, launcher_pid, started
from tests.support.receivers import OPEN, Receivers
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import Reason, State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Restarts take seconds under load: no guard and no reconciler steps in meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    cluster.env["GANTRY_DB_POOL"] = "3"  # fewer than runs: none is kept while a run is watched


@pytest.mark.account
@pytest.mark.parametrize("victims", ["worker", "launcher", "worker, launcher", "launcher, worker"])
def test_the_worker_tree_dies_while_a_command_runs(
    cluster: Cluster, account: Account, shared_folder: Path, them: Receivers, victims: str
) -> None:
    """Catches a second execution, a command that dies with its worker, a lost exit code, output or event."""
    worker, home = cluster.node(), cluster.folder / "n1"
    cluster.callbacks(settings=OPEN)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"echo before; while test -e {gate}; do sleep 0.05; done; echo after"
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", body, code=5), callback_url=them.url("/a"))
    wait_started(run_id)
    wait_until(lambda: output(run_id) == b"out-a\nbefore\n", why="the first output is stored")
    before = started(home, run_id)
    processes = commands(before.shim_pid)
    assert processes
    for victim in victims.split(", "):
        if victim == "worker":
            worker.kill()
        else:
            kill(launcher_pid(home))
    assert alive(before.shim_pid)
    assert alive(processes[0]), "the command dies with its worker"
    if not worker.alive:
        cluster.node()
        wait_until(lambda: run(run_id).lease_epoch == 2, why="the next worker adopts it")
    wait_until(lambda: launcher(home), why="there is a launcher again")
    assert started(home, run_id) == before, "I2: another process runs in its place"
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 5, 1)
    assert output(run_id) == b"out-a\nbefore\nafter\n"
    assert begins(ledger) == {"a": 1}
    assert_invariants(cluster, receivers=them)
    assert [item.json["result"] for item in them.at("/a")][-1] == "FAILED"


def test_the_command_ends_while_no_worker_lives(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a next worker that calls lost, or repeats, what ended by itself while nobody looked."""
    worker = cluster.node()
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", body))
    wait_started(run_id)
    shim = started(cluster.folder / "n1", run_id).shim_pid
    worker.kill()
    gate.unlink()
    wait_until(lambda: not alive(shim), why="the command ends without a worker")
    assert run(run_id).state == State.RUNNING
    cluster.node()
    wait_final(run_id)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id)
    assert_invariants(cluster)


@pytest.mark.account
@pytest.mark.parametrize("worker_lives", [True, False])
def test_a_command_that_is_gone_without_a_trace_is_lost(
    cluster: Cluster, account: Account, shared_folder: Path, worker_lives: bool
) -> None:
    """Catches success (or waiting for ever) where nobody can know the exit code; a retry that is not made."""
    worker, home = cluster.node(), cluster.folder / "n1"
    ledger = open_ledger(shared_folder)
    hold = shared_folder / "hold"
    hold.touch()
    body = f"while test -e {hold}; do sleep 0.05; done"
    plain = submit(account.tenant_id, ledger_command(ledger, "plain", body))
    again = submit(account.tenant_id, ledger_command(ledger, "again", body), retries=1)
    for run_id in (plain, again):
        wait_started(run_id)
    wait_begun(ledger, "plain")
    wait_until(lambda: output(again) == b"out-again\n", why="the output so far is stored")
    if not worker_lives:
        worker.kill()
    shims = [started(home, run_id).shim_pid for run_id in (plain, again)]
    processes = [process for shim in shims for process in commands(shim)]
    kill(*shims)
    wait_until(lambda: not any(map(alive, processes)), why="the commands died with their shims")
    if not worker_lives:
        cluster.node()
    (lost,) = wait_final(plain)
    assert (lost.state, lost.reason, lost.exit_code) == (State.FAILED, Reason.LOST, None)
    assert "left no exit code" in lost.message
    assert "outcome is unknown" in lost.message
    wait_until(lambda: run(again).attempt == 2 and run(again).started_at, why="the next try runs")
    hold.unlink()
    (mended,) = wait_final(again)
    assert (mended.state, mended.attempt, mended.retries_left) == (State.SUCCEEDED, 2, 0)
    first = Attempt.objects.get(run_id=again, number=1)
    assert (first.state, first.reason) == (State.FAILED, Reason.LOST)
    assert output(again, attempt=1) == b"out-again\n", "I6: what the lost attempt had written"
    assert_once(ledger, {"plain": plain, "again": again})
    assert_invariants(cluster)


def test_workers_killed_at_random_moments(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Fault 1 at phases that nobody chose: a stream of short commands under a worker that dies four times.

    Catches what the named crash points miss. The day's seed; the timing differs from run to run besides.
    """
    _killed_at_random(cluster, account, shared_folder, deaths=4)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_workers_killed_at_random_moments_for_long(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The same with 40 deaths."""
    _killed_at_random(cluster, account, shared_folder, deaths=40)


def _wait_begun(ledger: Path, how_many: int) -> None:
    wait_until(lambda: len(begins(ledger)) >= how_many, 60, 0.005, why=f"{how_many} commands have begun")


def _killed_at_random(cluster: Cluster, account: Account, folder: Path, *, deaths: int) -> None:
    chance = dice(f"workers killed, {deaths} deaths")
    ledger = open_ledger(folder)
    names: dict[str, int] = {}
    codes: dict[str, int] = {}
    worker = cluster.node(GANTRY_MAX_CRASHES="1000")
    for death in range(deaths):
        moment = len(begins(ledger)) + chance.randrange(1, 12)
        for number in range(12):
            name = f"c{death}-{number}"
            codes[name] = chance.choice([0, 0, 7])
            body = f"sleep {chance.uniform(0, 1.2):.2f}"
            names[name] = submit(account.tenant_id, ledger_command(ledger, name, body, codes[name]))
        _wait_begun(ledger, moment)
        worker.kill()
        worker = cluster.node(GANTRY_MAX_CRASHES="1000", GANTRY_WAIT_BROKER=chance.choice("01"))
    wait_final(*names.values(), timeout_s=120)
    assert_once(ledger, names)
    for name, run_id in names.items():
        assert_truth(ledger, name, run_id, codes[name])
    assert not Run.objects.filter(attempt__gt=1).exists()
    assert_invariants(cluster)
