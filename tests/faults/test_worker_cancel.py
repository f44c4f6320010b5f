"""Fault 19: a cancel at every phase of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connection

from tests.support.cluster import Cluster, Process
from tests.support.engine import cancel_unheard, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, begins, ledger_command, open_ledger
from tests.support.ledger import ticking_command, traces, wait_begun
from tests.support.machine import alive, commands, started, wait_dead, wait_for_file
from tests.support.session import POSTGRES
from tests.support.waiting import wait_until
from workers import services
from workers.models import Run
from workers.vocabulary.states import Reason, State


@dataclass(frozen=True)
class Phase:
    """A phase in which a run is held while the cancel comes, and how it must end."""

    step: str
    state: State
    message: str
    #: Does the command begin? None: perhaps, it is killed as soon as it is there.
    begun: bool | None
    exit_code: int | None = None


_NEVER = "Cancelled before it started"
_PHASES = {
    "claimed": Phase("runner.before_prepare", State.CANCELLED, _NEVER, False),
    "prepared": Phase("runner.after_prepare", State.CANCELLED, _NEVER, False),
    "starting": Phase("runner.before_start", State.CANCELLED, "Command was killed by request", None, 143),
    "just started": Phase("runner.after_start", State.CANCELLED, "Command was killed by request", True, 143),
    # The command has ended by itself, with a try left: that is its true end, and there is no next try.
    "ended": Phase("runner.after_exit", State.FAILED, "Command exited with status 7", True, 7),
    "recording": Phase("runner.before_finish_commit", State.FAILED, "Command exited with status 7", True, 7),
}


def test_cancelled_at_every_phase_of_a_claimed_run(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a cancel that is overlooked, a start or a retry after it, an end that is not the true one."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger = open_ledger(shared_folder)
    workers: dict[str, Process] = {}
    runs: dict[str, int] = {}
    for number, (name, phase) in enumerate(_PHASES.items()):
        rack = f"p{number}"
        workers[name] = cluster.node(
            rack,
            attributes=f"rack_id={rack}",
            wait=False,
            GANTRY_CRASH_AT=phase.step,
            GANTRY_CRASH_ONCE=str(cluster.folder / f"{rack}.held"),
            GANTRY_CRASH_HOW="hold",
        )
        body = "exit 7" if phase.exit_code == 7 else "sleep 600"
        command = ledger_command(ledger, rack, body)
        runs[name] = submit(account.tenant_id, command, constraints={"rack_id": [rack]}, retries=1)
    for number, (name, phase) in enumerate(_PHASES.items()):
        wait_for_file(cluster.folder / f"p{number}.held", 120)
        if phase.begun:
            wait_begun(ledger, f"p{number}")
        done = services.cancel(account.tenant_id, runs[name])
        assert (done.accepted, done.already_final, done.state) == (True, False, State.RUNNING), name
    for number, (name, phase) in enumerate(_PHASES.items()):
        if phase.begun is not False:  # before its start it need not have heard: it asks
            _wait_heard(workers[name])
        (cluster.folder / f"p{number}.held.go").touch()
        (ended,) = wait_final(runs[name])
        found = (ended.state, ended.message, ended.exit_code, ended.attempt)
        assert found == (phase.state, phase.message, phase.exit_code, 1), name
        if phase.begun is not None:
            assert begins(ledger).get(f"p{number}", 0) == int(phase.begun), name
    assert max(begins(ledger).values()) == 1
    assert_invariants(cluster)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_start_asks_whether_a_cancel_was_accepted(
    cluster: Cluster, account: Account, shared_folder: Path, adopted: bool
) -> None:
    """I5. Catches a start after a cancel of which its node's agent has not heard.

    ``adopted``: the worker before died between preparing it and starting it.
    """
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger = open_ledger(shared_folder)
    at = {"GANTRY_CRASH_AT": "runner.after_prepare", "GANTRY_WAIT_BROKER": "0"}
    before = cluster.node(settings=at) if adopted else None
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", "sleep 600"), retries=2)
    if before is not None:
        wait_dead(before)
    held = cluster.folder / "held"
    worker = cluster.node(settings={**at, "GANTRY_CRASH_HOW": "hold", "GANTRY_CRASH_ONCE": str(held)})
    wait_for_file(held, 90)
    with _agents_held():
        cancel_unheard(run_id, operator=True)
        Path(f"{held}.go").touch()
        worker.wait_said("by=runner")
        assert "by=agent" not in worker.text(), "its agent heard: this proves nothing"
    (ended,) = wait_final(run_id)
    found = (ended.state, ended.reason, ended.message, ended.attempt, ended.started_at)
    assert found == (State.CANCELLED, Reason.OPERATOR, _NEVER, 1, None)
    assert begins(ledger) == {}
    assert_invariants(cluster)


@contextlib.contextmanager
def _agents_held() -> Iterator[None]:
    """No agent gets its look inside the block: that begins with a lock on its node's row."""
    holder = POSTGRES.connect(str(connection.settings_dict["NAME"]))
    try:
        with holder.cursor() as cursor:
            cursor.execute("SELECT 1 FROM workers_node FOR UPDATE")
        yield
    finally:
        holder.close()  # ends its transaction, and with it the lock


def _wait_heard(worker: Process) -> None:
    worker.wait_said("run.cancel_heard")


def test_cancelled_while_it_waits(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a start after a cancel that was confirmed while the run was pending: new, or between tries."""
    ledger = open_ledger(shared_folder)
    new = submit(account.tenant_id, ledger_command(ledger, "new"))
    done = services.cancel(account.tenant_id, new)
    assert (done.accepted, done.state) == (True, State.CANCELLED)
    cluster.node(GANTRY_RETRY_BASE_S="60")
    again = submit(account.tenant_id, ledger_command(ledger, "again", code=7), retries=3)
    wait_until(lambda: run(again).not_before is not None, why="it waits for its next try")
    done = services.cancel(account.tenant_id, again)
    assert (done.accepted, done.state) == (True, State.CANCELLED)
    Run.objects.filter(pk=again).update(not_before=None)  # nothing holds it back any more but the cancel
    last = submit(account.tenant_id, ledger_command(ledger, "last"))
    wait_final(last)
    assert begins(ledger) == {"again": 1, "last": 1}
    for run_id, tries in ((new, 0), (again, 1)):
        assert (run(run_id).state, run(run_id).attempt) == (State.CANCELLED, tries)
        late = services.cancel(account.tenant_id, run_id)
        assert (late.accepted, late.already_final) == (False, True)
    assert_invariants(cluster)


@pytest.mark.account
def test_a_running_command_is_cancelled_with_all_that_it_started(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches descendants in sessions of their own that ignore TERM and outlive the grace period."""
    cluster.node(GANTRY_WAIT_BROKER="0")
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    command = ticking_command(ledger, "a", while_exists=gate, deaf=True)
    run_id = submit(account.tenant_id, command, retries=1, grace_s=1)
    wait_started(run_id)
    wait_until(lambda: any(trace.last > trace.began for trace in traces(ledger, "a")), why="it ticks")
    shim = started(cluster.folder / "n1", run_id).shim_pid
    processes = commands(shim)
    assert services.cancel(None, run_id, operator=True).accepted
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.attempt) == (State.CANCELLED, Reason.OPERATOR, 1)
    assert not any(map(alive, [shim, *processes])), "the end was recorded before everything was dead"
    assert_once(ledger, {"a": run_id})
    assert_invariants(cluster)
