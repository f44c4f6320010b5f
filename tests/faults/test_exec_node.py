"""Faults beside execs: the disk of their node is full while they start, or write; their container pauses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_exec import clean, submit_exec
from tests.support.cluster import Cluster
from tests.support.disk import node_on_small_disk
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import begins, ledger_command, open_ledger
from tests.support.jobs import box
from tests.support.machine import wait_for_file
from tests.support.waiting import wait_until
from tests.unit.launcher.launching import mark, sleepers
from workers import services
from workers.models import Attempt
from workers.vocabulary.states import State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"


def test_the_disk_is_full_while_they_start(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a second execution after a fault that is no proof that the first did not happen, and an end
    that nobody can write down."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    disk = node_on_small_disk(cluster, "small", 24, **engine.env, GANTRY_MIN_FREE_MB="0")
    ledger = open_ledger(shared_folder)
    first = submit_exec(account.tenant_id, "true")
    wait_final(first)
    filler = disk.inside / "filler"
    runs = {}
    with filler.open("wb", buffering=0) as file:
        for number in range(24):
            runs[f"r{number}"] = submit_exec(
                account.tenant_id, ledger_command(ledger, f"r{number}", "seq 1 2000; sleep 0.2")
            )
            if number == 4:
                wait_until(lambda: begins(ledger), why="the first ones run")
            if number >= 4:
                try:
                    while True:
                        os.write(file.fileno(), bytes(4096))
                except OSError:
                    pass
        wait_until(lambda: len(begins(ledger)) >= 8, why="some begin while the disk is full")
    filler.unlink()
    ended = wait_final(*runs.values(), timeout_s=120)
    counts = begins(ledger)
    assert {name: count for name, count in counts.items() if count > 1} == {}
    by_id = {row.pk: row for row in ended}
    for name, run_id in runs.items():
        row = by_id[run_id]
        if row.state == State.SUCCEEDED:
            assert counts.get(name) == 1, f"{name} is told as done and never ran"


def test_a_cancel_in_a_paused_container_says_so(engine: Engine, cluster: Cluster, account: Account) -> None:
    where = box(engine, "box")
    cluster.node(settings=engine.env)
    number = mark()
    run_id = submit_exec(account.tenant_id, f"sleep {number}", grace_s=0)
    wait_started(run_id)
    wait_until(lambda: sleepers(number), why="it runs")
    engine.client.api.pause(where)
    services.cancel(account.tenant_id, run_id)
    wait_until(
        lambda: "is paused" in run(run_id).message, why="its message says so", see=lambda: run(run_id).message
    )
    told: Any = services.explain(account.tenant_id, run_id)
    (reason,) = told["reasons"]
    assert "takes effect when it is unpaused (docker unpause box)" in reason["message"]
    assert run(run_id).state == State.RUNNING
    engine.client.api.unpause(where)
    (ended,) = wait_final(run_id)
    assert (ended.state, sleepers(number)) == (State.CANCELLED, [])
    assert Attempt.objects.filter(run_id=run_id).count() == 1
    clean(cluster)


def test_output_that_finds_no_space_is_told(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a log with a silent hole."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    disk = node_on_small_disk(cluster, "small", 24, **engine.env, GANTRY_MIN_FREE_MB="0")
    written = shared_folder / "written"
    gates = [shared_folder / name for name in ("one", "two")]
    waits = [f"until test -e {gate}; do sleep 0.05; done" for gate in gates]
    body = f"echo first; {waits[0]}; seq 1 30000; echo; touch {written}; {waits[1]}; echo last"
    run_id = submit_exec(account.tenant_id, body)
    wait_until(lambda: output(run_id) == b"first\n", why="its first line is stored")
    filler = disk.inside / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:
            pass
        gates[0].touch()
        wait_for_file(written)  # more than any pipe holds: it was taken
    filler.unlink()
    gates[1].touch()
    (ended,) = wait_final(run_id)
    said = output(run_id)
    assert ended.state == State.SUCCEEDED
    assert b"bytes of output are missing here: there was no space for them]\n" in said
    assert said.endswith(b"last\n")
    assert "bytes of its output are missing" in ended.message
    assert Attempt.objects.get(run_id=run_id).log_truncated
    clean(cluster)
