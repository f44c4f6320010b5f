"""Faults 19 and 20: a cancel that races the start and the end of a run, and one while no worker lives."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from django.db import connection
from django.utils import timezone

from tests.support.cluster import Cluster
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, begins, ledger_command, open_ledger
from tests.support.ledger import traces, wait_begun
from tests.support.machine import alive, commands, kill, launcher_pid, started, wait_dead
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node, RunEvent
from workers.services import Cancellation
from workers.vocabulary.states import FINAL, Reason, State


def test_cancel_races_the_start_and_the_end(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches two ends of one run, an end that is not the true one, a start after a confirmed cancel."""
    _race(cluster, account, shared_folder, rounds=10)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_cancel_races_the_start_and_the_end_often(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The same with a hundred runs of each kind."""
    _race(cluster, account, shared_folder, rounds=100)


@dataclass
class _Racer:
    """One run and the moment of its cancel, in seconds after its submission or its beginning."""

    name: str
    of: Literal["start", "end"]
    takes_s: float
    cancel_after_s: float
    code: int
    run_id: int = 0
    answer: Cancellation | None = None


def _race(cluster: Cluster, account: Account, folder: Path, *, rounds: int) -> None:
    cluster.node()
    ledger = open_ledger(folder)
    chance = dice(f"cancels, {rounds} rounds")
    racers = []
    for number in range(rounds):
        takes_s, code = chance.uniform(0.05, 0.3), chance.choice([0, 7])
        racers.append(_Racer(f"end{number}", "end", takes_s, max(0.0, takes_s + chance.gauss(0, 0.05)), code))
        racers.append(_Racer(f"start{number}", "start", takes_s, chance.uniform(0, 0.06), code))

    def play(racer: _Racer) -> None:
        command = ledger_command(ledger, racer.name, f"sleep {racer.takes_s:.3f}", racer.code)
        try:
            racer.run_id = submit(account.tenant_id, command, retries=1)
            if racer.of == "end":
                wait_until(lambda: begins(ledger).get(racer.name), 60, 0.005, why=f"{racer.name} begins")
            time.sleep(racer.cancel_after_s)  # pace: the race itself
            racer.answer = services.cancel(account.tenant_id, racer.run_id)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(play, racers))
    wait_final(*(racer.run_id for racer in racers), timeout_s=120)
    assert_invariants(cluster)
    for racer in racers:
        _judge(racer, ledger)
    ends = {run(racer.run_id).state for racer in racers}
    assert State.CANCELLED in ends, "no cancel came in time: this was no race"


def _judge(racer: _Racer, ledger: Path) -> None:
    """The run ended once: as the cancel said, or as the command really ended."""
    row, answer = run(racer.run_id), racer.answer
    assert answer is not None
    told = f"{racer}: {row.state} {row.message}"
    final = RunEvent.objects.filter(run_id=row.pk, to_state__in=FINAL).count()
    assert final == 1, f"{final} ends of {told}"
    tries = traces(ledger, racer.name)
    if answer.already_final:
        assert answer.state == row.state, told
    else:
        # It was pending, or the worker was asked to stop the attempt of that moment: there is no later one.
        assert row.attempt == answer.run.attempt, f"I5: it began after the cancel: {told}"
        if answer.state == State.CANCELLED:
            assert row.state == State.CANCELLED, told
        if answer.state == State.CANCELLED and "its node stops it" not in answer.message:
            # Pending: what began before was an earlier try, each of which ended by itself.
            assert all(trace.ended for trace in tries), told
            assert len(tries) == row.attempt, f"I5: it began after the cancel: {told}"
    if row.state != State.CANCELLED:
        assert (row.state, row.exit_code) == (State.FAILED if racer.code else State.SUCCEEDED, racer.code), (
            told
        )
        assert tries[-1].ended, f"I6: {told}"
        assert output(row.pk).decode() == f"out-{racer.name}\n", told
    # One that is killed at its start may be dead before its first line.
    assert len(tries) <= Attempt.objects.filter(run_id=row.pk, started_at__isnull=False).count(), (
        f"I2: {told}"
    )


def test_cancel_while_no_worker_lives(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Fault 20. Catches a cancel that is forgotten with the worker it was meant for, and a start after it."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger = open_ledger(shared_folder)
    mark = str(cluster.folder / "crashed")
    first = cluster.node("n1", attributes="rack_id=r1", GANTRY_WAIT_BROKER="0")
    second = cluster.node(
        "n2",
        attributes="rack_id=r2",
        wait=False,
        GANTRY_CRASH_AT="runner.before_start",
        GANTRY_CRASH_ONCE=mark,
    )
    where = {"running": "r1", "claimed": "r2"}
    runs = {
        name: submit(
            account.tenant_id,
            ledger_command(ledger, name, "sleep 600"),
            constraints={"rack_id": [rack]},
            retries=2,
        )
        for name, rack in where.items()
    }
    wait_dead(second)
    wait_started(runs["running"])
    wait_begun(ledger, "running")
    shim = started(cluster.folder / "n1", runs["running"]).shim_pid
    processes = [shim, *commands(shim)]
    first.kill()
    for run_id in runs.values():
        done = services.cancel(account.tenant_id, run_id)
        assert (done.accepted, done.state) == (True, State.RUNNING)
    for node, rack in (("n1", "r1"), ("n2", "r2")):
        cluster.node(node, attributes=f"rack_id={rack}", GANTRY_WAIT_BROKER="0")
    killed, never = wait_final(runs["running"], runs["claimed"])
    assert (killed.state, killed.message, killed.attempt) == (
        State.CANCELLED,
        "Command was killed by request",
        1,
    )
    assert (never.state, never.message, never.attempt) == (State.CANCELLED, "Cancelled before it started", 1)
    assert not any(map(alive, processes))
    assert begins(ledger) == {"running": 1}
    assert_once(ledger, runs)
    assert_invariants(cluster)


def test_cancel_on_a_machine_that_never_comes_back(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a cancelled run that waits for its dead node for ever, or is retried elsewhere."""
    ledger = open_ledger(shared_folder)
    gone = cluster.node("gone", GANTRY_WAIT_BROKER="0")
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", "sleep 600"), retries=2)
    wait_started(run_id)
    wait_begun(ledger, "a")
    home = cluster.folder / "gone"
    shim = started(home, run_id).shim_pid
    gone.kill()
    kill(launcher_pid(home), shim)
    assert services.cancel(account.tenant_id, run_id).state == State.RUNNING
    Node.objects.filter(name="gone").update(heartbeat_at=timezone.now() - timedelta(hours=1))
    cluster.node("other", GANTRY_WAIT_BROKER="0")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason, ended.attempt) == (State.CANCELLED, Reason.UNREACHABLE, 1)
    assert Attempt.objects.get(run_id=run_id).state == State.CANCELLED
    assert begins(ledger) == {"a": 1}
    cluster.node("gone", GANTRY_WAIT_BROKER="0")  # and clears up what the crash left there
    assert_invariants(cluster)
