"""Faults while a run's files are fetched and stored: a dead worker, a dead Swift, a cancel at every step."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.db import connection

from tests.support.cluster import Cluster
from tests.support.engine import cancel_unheard, run, wait_final
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, ledger_command, open_ledger
from tests.support.machine import wait_dead
from tests.support.staged import OPEN, inputs, outputs, staged
from tests.support.swift import Swift
from tests.support.waiting import wait_until
from workers import services
from workers.models import Run
from workers.vocabulary.crashpoints import STAGING_STEPS
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024
#: Three segments of one MiB each, the last one short.
DATA = os.urandom(2 * MIB + 12_345)


@pytest.fixture
def cluster(cluster: Cluster) -> Cluster:
    cluster.env |= {**OPEN, "GANTRY_SWIFT_SEGMENT_MB": "1"}
    return cluster


def _at(cluster: Cluster, account: Account, swift: Swift, ledger: Path, step: str, number: int) -> None:
    """The worker dies at a step, the next one finishes what it began."""
    node, box = f"n{number}", swift.container()
    swift.put(f"{box}/in", DATA)
    swift.put(f"{box}/second", DATA)
    mark = cluster.folder / f"{node}.crashed"
    crash = {"GANTRY_CRASH_AT": step, "GANTRY_CRASH_ONCE": str(mark)}
    worker = cluster.node(node, attributes=f"rack_id={node}", settings=crash, wait=False)
    command = ledger_command(ledger, node, "cat in/0/in in/1/second > out/0; cp in/0/in out/1")
    run_id = staged(
        account.tenant_id,
        swift,
        command,
        inputs=inputs(f"{box}/in", f"{box}/second"),
        outputs=outputs(f"{box}/twice", f"{box}/once"),
        constraints={"rack_id": [node]},
    )
    wait_dead(worker, 120)
    assert mark.exists(), f"it died of something else:\n{worker.text()[-2000:]}"
    cluster.node(node, attributes=f"rack_id={node}", wait=False)
    (row,) = wait_final(run_id, timeout_s=120)

    assert (row.state, row.attempt) == (State.SUCCEEDED, 1), row.message
    assert swift.get(f"{box}/twice") == DATA + DATA
    assert swift.get(f"{box}/once") == DATA
    assert_once(ledger, {node: run_id})
    asked = [(method, path) for method, path, _, status in swift.requests() if status // 100 == 2]
    for name in ("twice", "once"):
        puts = [path for method, path in asked if method == "PUT" and path.endswith(f"/{box}/{name}")]
        assert len(puts) == 1, f"{name} became visible {len(puts)} times"
    for name in ("in", "second"):
        gets = [path for method, path in asked if method == "GET" and path.endswith(f"/{box}/{name}")]
        again = (step, name) == ("staging.in_input", "in")
        assert len(gets) == 1 + again, f"{name} was asked for {len(gets)} times"
    segments = swift.names(f"{box}_segments")
    assert len(segments) == 5 + 3, segments


@pytest.mark.parametrize("steps", [STAGING_STEPS[:4], STAGING_STEPS[4:]], ids=["in", "out"])
def test_the_worker_dies_at(
    cluster: Cluster, account: Account, swift: Swift, shared_folder: Path, steps: tuple[str, ...]
) -> None:
    """Catches what is fetched, executed or stored twice, or not at all, or left behind."""
    ledger = open_ledger(shared_folder)

    def one(number: int) -> None:
        try:
            _at(cluster, account, swift, ledger, steps[number], number)
        except AssertionError as error:
            raise AssertionError(f"{steps[number]}: {error}") from error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(one, number) for number in range(len(steps))]:
            done.result()
    assert_invariants(cluster)


@pytest.mark.parametrize(
    "step", ["staging.in_input", "staging.in_output", "staging.before_commit"], ids=lambda step: step[8:]
)
def test_a_cancel_meanwhile(cluster: Cluster, account: Account, swift: Swift, step: str) -> None:
    """Catches an object that appears after its cancel was answered, and what is left of one that does not."""
    box = swift.container()
    swift.put(f"{box}/in", DATA)
    hold = cluster.folder / "hold"
    deaf = {"GANTRY_LOOK_S": "60", "GANTRY_HEARTBEAT_S": "20"} if step == "staging.before_commit" else {}
    cluster.node(settings=deaf, GANTRY_CRASH_AT=step, GANTRY_CRASH_ONCE=str(hold), GANTRY_CRASH_HOW="hold")
    run_id = staged(
        account.tenant_id,
        swift,
        "cp in/0/in out/0",
        inputs=inputs(f"{box}/in"),
        outputs=outputs(f"{box}/out"),
    )
    wait_until(hold.exists, why=f"it comes by {step}")
    if deaf:
        cancel_unheard(run_id)  # nobody but the question before the last step can learn of it in time
    else:
        assert services.cancel(account.tenant_id, run_id).accepted
    Path(f"{hold}.go").touch()
    (row,) = wait_final(run_id)

    assert row.state == State.CANCELLED, row.message
    assert row.message.startswith("Cancelled")
    assert swift.names(box) == ["in"]
    assert swift.names(f"{box}_segments") == []
    assert_invariants(cluster)


@pytest.mark.parametrize("step", ["staging.in_input", "staging.in_output"], ids=lambda step: step[8:])
def test_a_swift_that_dies_and_comes_back(
    cluster: Cluster, account: Account, mortal_swift: Swift, step: str
) -> None:
    """Catches a run that fails, runs twice or stores half for a storage that was away for a while."""
    swift, box = mortal_swift, mortal_swift.container()
    swift.put(f"{box}/in", DATA)
    hold = cluster.folder / "hold"
    cluster.node(GANTRY_CRASH_AT=step, GANTRY_CRASH_ONCE=str(hold), GANTRY_CRASH_HOW="hold")
    run_id = staged(
        account.tenant_id,
        swift,
        "cp in/0/in out/0",
        inputs=inputs(f"{box}/in"),
        outputs=outputs(f"{box}/out"),
    )
    wait_until(hold.exists, why=f"it comes by {step}")
    swift.stop()
    Path(f"{hold}.go").touch()
    wait_until(
        lambda: "tried again" in run(run_id).message, why="its message says so", see=lambda: _seen(run_id)
    )
    swift.start()
    (row,) = wait_final(run_id)

    assert (row.state, row.attempt) == (State.SUCCEEDED, 1), row.message
    assert swift.get(f"{box}/out") == DATA
    assert len(swift.names(f"{box}_segments")) == 3
    assert_invariants(cluster)


def _seen(run_id: int) -> list[object]:
    return list(Run.objects.filter(pk=run_id).values_list("state", "message", "attempt"))


def test_a_swift_that_stays_away(cluster: Cluster, account: Account, mortal_swift: Swift) -> None:
    """The output is kept until patience is over, then the run has failed and nothing is left on the node."""
    swift, box = mortal_swift, mortal_swift.container()
    hold = cluster.folder / "hold"
    cluster.node(
        GANTRY_STAGING_PATIENCE_S="3",
        GANTRY_CRASH_AT="staging.before_output",
        GANTRY_CRASH_ONCE=str(hold),
        GANTRY_CRASH_HOW="hold",
    )
    run_id = staged(account.tenant_id, swift, "echo x > out/0", outputs=outputs(f"{box}/out"))
    wait_until(hold.exists, why="it is about to store")
    swift.stop()
    Path(f"{hold}.go").touch()
    (row,) = wait_final(run_id)

    assert (row.state, row.reason, row.exit_code) == (State.FAILED, Reason.OUTPUT, 0)
    assert f"swift://{box}/out could not be stored" in row.message
    wait_until(lambda: not list((cluster.folder / "n1" / "scratch").iterdir()), why="its scratch is removed")
    swift.start()
    assert swift.names(box) == []
    assert_invariants(cluster)
