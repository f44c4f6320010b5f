"""The restore drill with containers, which live in the engine whatever becomes of workers and database."""

from __future__ import annotations

import io
from pathlib import Path

from django.core.management import call_command

from tests.support.backup import dump, restore
from tests.support.cluster import Cluster
from tests.support.containers import container_of, containers_of, happened, submit_container
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, begins, ledger_command, open_ledger
from tests.support.machine import alive, wait_dead
from tests.support.waiting import wait_until
from workers.models import Run
from workers.vocabulary.states import Reason, State


def test_containers_are_newer_than_the_restored_database(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches, after a restore: a container killed before somebody said so, one that is started a second time
    or left behind, one taken for another's, a success that nobody saw."""
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "300", "GANTRY_ORPHAN_GRACE_S": "1"}
    ledger = open_ledger(shared_folder)
    gates = {name: shared_folder / name for name in ("ended", "runs", "waits", "newer")}

    def gated(name: str, code: int = 0, rack: str = "r1") -> int:
        gates[name].touch()
        script = ledger_command(ledger, name, f"while test -e {gates[name]}; do sleep 0.05; done", code)
        return submit_container(
            account.tenant_id, script, share=shared_folder, constraints={"rack_id": [rack]}, retries=2
        )

    worker = cluster.node("n1", attributes="rack_id=r1", settings=engine.env)
    ended, runs, waits = gated("ended"), gated("runs", 5), gated("waits", rack="r2")
    for run_id in (ended, runs):
        wait_started(run_id)

    backup = dump(shared_folder / "backup")

    # An hour of work, in short: one ends, one is submitted and runs, a node joins and takes what waited.
    gates["ended"].unlink()
    wait_final(ended)
    newer = gated("newer")
    other = cluster.node("n2", attributes="rack_id=r2", settings=engine.env)
    for run_id in (newer, waits):
        wait_started(run_id)
    before = {run_id: container_of(engine, run_id)["Id"] for run_id in (runs, newer, waits)}
    mains = {container: engine.main(container) for container in before.values()}

    restore(backup)
    for each in (worker, other):
        wait_dead(each)
        assert "restored from a backup" in each.text()
    assert not Run.objects.filter(pk=newer).exists()
    for run_id, container in before.items():
        assert container_of(engine, run_id)["Id"] == container
        assert alive(mains[container]), "nothing is killed before the operator's word"

    call_command("after_restore", "--hold", "600", stdout=io.StringIO())
    cluster.node("n1", attributes="rack_id=r1", settings=engine.env)
    cluster.node("n2", attributes="rack_id=r2", settings=engine.env)
    # Nobody's: removed. Ours: taken up again. Ended since: lost, not a success that this database never saw.
    wait_until(lambda: not containers_of(engine, newer), 90, why="the unknown run's container is removed")
    wait_until(lambda: not containers_of(engine, waits), 90, why="the earlier start of the waiting run goes")
    (lost,) = wait_final(ended)
    assert (lost.state, lost.reason, lost.attempt) == (State.FAILED, Reason.LOST, 1)
    wait_until(lambda: run(runs).lease_epoch > 1000, why="it is adopted")
    assert container_of(engine, runs)["Id"] == before[runs]
    assert (run(waits).state, run(waits).attempt) == (State.PENDING, 1000), "it is kept back"
    Run.objects.filter(pk=waits).update(not_before=None)  # its time is over
    wait_until(lambda: run(waits).attempt == 1001, 60, why="what waited runs in the end")
    wait_started(waits)
    again = container_of(engine, waits)
    assert again["Config"]["Labels"]["gantry.attempt"] == "1001"
    for gate in gates.values():
        gate.unlink(missing_ok=True)
    done = {row.pk: row for row in wait_final(runs, waits)}
    assert (done[runs].state, done[runs].exit_code, done[runs].attempt) == (State.FAILED, 5, 1)
    assert done[runs].crashes == 0
    assert done[waits].state == State.SUCCEEDED
    assert output(runs) == b"out-runs\n"
    assert begins(ledger) == {"ended": 1, "runs": 1, "newer": 1, "waits": 2}
    assert happened(engine, runs)["create"] == 1
    assert_invariants(cluster, engines=[engine])
