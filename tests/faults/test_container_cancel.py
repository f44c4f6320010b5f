"""Faults 19 and 20 for containers: a cancel at every phase, racing start and end, and while nobody works."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from django.db import connection

from tests.support.cluster import Cluster
from tests.support.containers import container_of, happened, submit_container
from tests.support.engine import cancel_unheard, output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, begins, ledger_command, open_ledger
from tests.support.ledger import wait_begun
from tests.support.machine import alive
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, RunEvent
from workers.services import Cancellation
from workers.vocabulary.states import FINAL, State

#: Where the worker waits while the cancel comes -> may the container begin? Only once it is cleared to.
_PHASES = {
    "agent.after_claim": False,
    "runner.before_prepare": False,
    "runner.after_prepare": False,
    "runner.before_start": True,
    "runner.after_start": True,
    "runner.after_started_commit": True,
}


@pytest.mark.parametrize("phase", [*_PHASES])
def test_cancel_while_the_worker_stands_at(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, phase: str
) -> None:
    """Catches a cancel that is overtaken by the start, and one that is heard and forgotten.

    Where it must not begin, its node is not told of the cancel and looks again in an hour: it has to ask.
    """
    begun = _PHASES[phase]
    mark = cluster.folder / "held"
    hold = {"GANTRY_CRASH_AT": phase, "GANTRY_CRASH_ONCE": str(mark), "GANTRY_CRASH_HOW": "hold"}
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    if not begun:
        hold["GANTRY_LOOK_S"] = "3600"
    cluster.node(settings={**engine.env, **hold, "GANTRY_WAIT_BROKER": "0"})
    ledger = open_ledger(shared_folder)
    command = ledger_command(ledger, "a", "sleep 600")
    run_id = submit_container(account.tenant_id, command, share=shared_folder, retries=2, grace_s=0)
    wait_until(mark.exists, why=f"the worker comes to {phase}")
    if begun:
        assert services.cancel(account.tenant_id, run_id).accepted
    else:
        cancel_unheard(run_id)
    Path(f"{mark}.go").touch()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.attempt) == (State.CANCELLED, 1)
    if not begun:
        assert begins(ledger) == {}, "I5: it began after the cancel was confirmed"
    assert_invariants(cluster, engines=[engine])
    assert happened(engine, run_id).get("start", 0) <= begun


def test_cancel_while_no_worker_lives(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Fault 20. Catches a cancel that is forgotten with the worker it was meant for."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    ledger = open_ledger(shared_folder)
    worker = cluster.node(settings=engine.env)
    command = ledger_command(ledger, "a", "sleep 600")
    run_id = submit_container(account.tenant_id, command, share=shared_folder, retries=2)
    wait_started(run_id)
    wait_begun(ledger, "a")
    pids = engine.pids(container_of(engine, run_id)["Id"])
    worker.kill()
    done = services.cancel(account.tenant_id, run_id)
    assert (done.accepted, done.state) == (True, State.RUNNING)
    cluster.node(settings=engine.env, GANTRY_WAIT_BROKER="0")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.attempt, ended.message) == (
        *(State.CANCELLED, 1),
        "Container was killed by request",
    )
    assert not any(map(alive, pids))
    assert begins(ledger) == {"a": 1}
    assert_once(ledger, {"a": run_id})
    assert_invariants(cluster, engines=[engine])


def test_cancel_races_the_start_and_the_end(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches two ends of one run, an end that is not the true one, a start after a confirmed cancel."""
    _race(engine, cluster, account, shared_folder, rounds=6)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_cancel_races_the_start_and_the_end_often(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The same with a hundred runs of each kind."""
    _race(engine, cluster, account, shared_folder, rounds=100)


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


def _race(engine: Engine, cluster: Cluster, account: Account, folder: Path, *, rounds: int) -> None:
    cluster.node(settings=engine.env)
    ledger = open_ledger(folder)
    chance = dice(f"cancels of containers, {rounds} rounds")
    racers = []
    for number in range(rounds):
        takes_s, code = chance.uniform(0.1, 0.4), chance.choice([0, 7])
        racers.append(_Racer(f"end{number}", "end", takes_s, max(0.0, takes_s + chance.gauss(0, 0.1)), code))
        racers.append(_Racer(f"start{number}", "start", takes_s, chance.uniform(0, 0.6), code))

    def play(racer: _Racer) -> None:
        command = ledger_command(ledger, racer.name, f"sleep {racer.takes_s:.3f}", racer.code)
        try:
            racer.run_id = submit_container(account.tenant_id, command, share=folder, retries=1)
            if racer.of == "end":
                wait_until(lambda: begins(ledger).get(racer.name), 60, 0.005, why=f"{racer.name} begins")
            time.sleep(racer.cancel_after_s)  # pace: the race itself
            racer.answer = services.cancel(account.tenant_id, racer.run_id)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(play, racers))
    wait_final(*(racer.run_id for racer in racers), timeout_s=90)
    assert_invariants(cluster, engines=[engine])
    for racer in racers:
        _judge(racer, ledger)
    ends = {run(racer.run_id).state for racer in racers}
    assert State.CANCELLED in ends, "no cancel came in time: this was no race"


def _judge(racer: _Racer, ledger: Path) -> None:
    """The run ended once: as the cancel said, or as the container really ended."""
    row, answer = run(racer.run_id), racer.answer
    assert answer is not None
    told = f"{racer}: {row.state} {row.message}"
    final = RunEvent.objects.filter(run_id=row.pk, to_state__in=FINAL).count()
    assert final == 1, f"{final} ends of {told}"
    began = begins(ledger).get(racer.name, 0)
    if answer.already_final:
        assert answer.state == row.state, told
    else:
        # It was pending, or the worker was asked to stop the attempt of that moment: there is no later one.
        assert row.attempt == answer.run.attempt, f"I5: {told}"
        if answer.state == State.CANCELLED:
            assert row.state == State.CANCELLED, told
        if answer.state == State.CANCELLED and "its node stops it" not in answer.message:
            # Pending: what began before was an earlier try, and nothing begins after.
            assert began == row.attempt, f"I5: {told}"
    if row.state != State.CANCELLED:
        assert (row.state, row.exit_code) == (State.FAILED if racer.code else State.SUCCEEDED, racer.code), (
            told
        )
        assert output(row.pk).decode() == f"out-{racer.name}\n", f"I6: {told}"
    # One that is killed at its start may be dead before its first line.
    assert began <= Attempt.objects.filter(run_id=row.pk, started_at__isnull=False).count(), f"I2: {told}"
