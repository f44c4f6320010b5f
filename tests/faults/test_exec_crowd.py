"""Many execs at once: their worker is killed while it starts them, no descriptor is left, all are brief."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.test_exec import clean, submit_exec
from tests.support.cluster import Cluster
from tests.support.engine import output, wait_final
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import begins, ledger_command, open_ledger
from tests.support.jobs import box
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from workers.models import Run
from workers.vocabulary.states import State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "300", "GANTRY_MAX_CRASHES": "50"}


def assert_each_once(ledger: Path, runs: dict[str, int], timeout_s: float) -> None:
    """All of them ran, once, and that is what is told."""
    ended = wait_final(*runs.values(), timeout_s=timeout_s)
    odd = [(row.pk, row.state, row.message) for row in ended if row.state != State.SUCCEEDED]
    assert odd == [], f"{len(odd)} of {len(ended)}"
    assert begins(ledger) == dict.fromkeys(runs, 1)


@pytest.mark.long
def test_a_worker_killed_while_it_starts_them(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches an exec that never began and is told as lost, and one that is executed twice."""
    count = 360
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    ledger, chance = open_ledger(shared_folder), dice("execs-killed")
    runs = {f"r{n}": submit_exec(account.tenant_id, ledger_command(ledger, f"r{n}")) for n in range(count)}
    worker = cluster.node(settings=engine.env, GANTRY_WAIT_BROKER="0")
    for share in (0.2, 0.4, 0.6):
        least = int(share * count) + chance.randrange(count // 10)
        wait_until(lambda least=least: len(begins(ledger)) >= least, 240, 0.005, "some have begun")  # type: ignore[misc]
        worker.kill()
        worker = cluster.node(settings=engine.env, GANTRY_WAIT_BROKER="0")
    assert_each_once(ledger, runs, 300)
    clean(cluster)


@pytest.mark.long
def test_brief_ones_are_told_exactly(engine: Engine, cluster: Cluster, account: Account) -> None:
    """Catches an output that ends too early, and another exec's code."""
    box(engine, "box")
    cluster.node(settings=engine.env)
    runs = {
        submit_exec(account.tenant_id, f"echo {number} >&{1 + number % 2}; exit {number % 120}"): number
        for number in range(500)
    }
    wait_final(*runs, timeout_s=300)
    told = {row.pk: (row.exit_code, output(row.pk)) for row in Run.objects.filter(pk__in=runs)}
    assert told == {run_id: (number % 120, b"%d\n" % number) for run_id, number in runs.items()}


@pytest.mark.long
@pytest.mark.parametrize("descriptors", [128, 192])
def test_no_descriptor_is_left_while_they_start(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, descriptors: int
) -> None:
    """Catches a second execution after a fault that is no proof that the first did not happen."""
    box(engine, "box", binds=[f"{shared_folder}:{shared_folder}"])
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    cluster.node(
        under=["prlimit", f"--nofile={descriptors}:{descriptors}", "--"],
        settings=engine.env,
        GANTRY_WAIT_BROKER="0",
    )
    body = f"until test -e {gate}; do sleep 0.1; done"
    runs = {
        f"r{n}": submit_exec(account.tenant_id, ledger_command(ledger, f"r{n}", body)) for n in range(120)
    }
    wait_until(
        lambda: len(begins(ledger)) >= 8, 120, why="some have begun", see=lambda: Counter(begins(ledger))
    )
    gate.touch()
    ended = wait_final(*runs.values(), timeout_s=280)
    counts = begins(ledger)
    assert {name: count for name, count in counts.items() if count > 1} == {}
    by_id = {row.pk: row for row in ended}
    for name, run_id in runs.items():
        assert (counts.get(name, 0) == 1) == (by_id[run_id].state == State.SUCCEEDED), by_id[run_id].message
