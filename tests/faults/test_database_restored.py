"""The restore drill: the database is an hour older than what runs. Nothing is mixed up, nothing overlaps."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import call_command

from tests.support.backup import dump, restore
from tests.support.cluster import Cluster, Process
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, begins, ledger_command, open_ledger
from tests.support.ledger import assert_no_overlap, ticking_command
from tests.support.machine import alive, started, wait_dead
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Installation, Node, Run
from workers.node.registration import Capacity, DatabaseSetBack, heartbeat, register
from workers.vocabulary.states import Reason, State


def _gated(ledger: Path, name: str, gate: Path, code: int = 0) -> str:
    gate.touch()
    return ledger_command(ledger, name, f"while test -e {gate}; do sleep 0.05; done; echo more", code)


def _stopped_by_itself(worker: Process) -> None:
    wait_dead(worker)
    assert worker.popen.returncode == 1
    text = worker.text()
    assert "agent.superseded" in text
    assert "restored from a backup" in text
    assert "orphan.removed" not in text


def _refused(cluster: Cluster, name: str, **more: str) -> None:
    worker = cluster.node(name, wait=False, settings=more)
    wait_dead(worker)
    assert worker.popen.returncode == 1
    assert "run `manage.py after_restore` once" in " ".join(worker.text().split())
    assert "Traceback" not in worker.text()


def test_the_database_is_restored_from_before_what_runs_now(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches, after a restore: ids given twice, a result of one run recorded for another, work killed before
    anybody said so, two executions at a time, a run that never ends, a success that nobody saw."""
    cluster.env |= {
        "GANTRY_NODE_LOST_AFTER_S": "300",
        "GANTRY_ORPHAN_GRACE_S": "1",
        "GANTRY_RUNTIMES": "process",
    }
    ledger = open_ledger(shared_folder)
    gates = {name: shared_folder / name for name in ("ended", "runs", "waits", "newer")}
    n1 = cluster.node("n1", attributes="rack_id=r1")
    before = submit(account.tenant_id, ledger_command(ledger, "before"))
    wait_final(before)
    ended = submit(account.tenant_id, _gated(ledger, "ended", gates["ended"]), retries=2)
    runs = submit(account.tenant_id, _gated(ledger, "runs", gates["runs"], 5))
    gates["waits"].touch()
    waits = submit(
        account.tenant_id,
        ticking_command(shared_folder / "ticks", "waits", while_exists=gates["waits"], deaf=True),
        constraints={"rack_id": ["r2"]},
    )
    (shared_folder / "ticks").touch(0o666)
    (shared_folder / "ticks").chmod(0o666)
    for run_id in (ended, runs):
        wait_started(run_id)

    backup = dump(shared_folder / "backup")

    # An hour of work, in short: one ends, one is submitted and ends, one is submitted and runs, a node joins.
    gates["ended"].unlink()
    wait_final(ended)
    assert run(ended).state == State.SUCCEEDED
    wait_final(submit(account.tenant_id, ledger_command(ledger, "gone")))
    newer = submit(
        account.tenant_id, _gated(ledger, "newer", gates["newer"]), constraints={"rack_id": ["r1"]}
    )
    n2 = cluster.node("n2", attributes="rack_id=r2")
    for run_id in (newer, waits):
        wait_started(run_id)
    homes = {newer: cluster.folder / "n1", runs: cluster.folder / "n1", waits: cluster.folder / "n2"}
    shims = {run_id: started(home, run_id).shim_pid for run_id, home in homes.items()}

    restore(backup)
    assert not Run.objects.filter(pk=newer).exists()
    # Live workers notice, write nothing, kill nothing; none starts again before somebody has decided.
    _stopped_by_itself(n1)
    _stopped_by_itself(n2)
    assert (run(ended).state, run(runs).state, run(waits).state) == (
        State.RUNNING,
        State.RUNNING,
        State.PENDING,
    )
    _refused(cluster, "n1")
    _refused(cluster, "n2")  # a node that this database has never heard of
    assert all(alive(pid) for pid in shims.values()), "nothing was killed before the operator's word"

    out = io.StringIO()
    call_command("after_restore", "--hold", "600", stdout=out)
    assert "2 running" in out.getvalue()
    assert "1 waiting: kept back for 600 s" in out.getvalue()
    fresh = submit(account.tenant_id, ledger_command(ledger, "fresh"), constraints={"rack_id": ["r1"]})
    assert fresh > newer + 900_000, "an id is given twice"

    cluster.node("n1", attributes="rack_id=r1")
    cluster.node("n2", attributes="rack_id=r2")
    # Nobody's: killed. Ours: taken up again. Ended since: lost, not a success that this database never saw.
    wait_until(lambda: not alive(shims[newer]) and not alive(shims[waits]), 90, why="nobody's work is killed")
    (lost,) = wait_final(ended)
    assert (lost.state, lost.reason, lost.attempt) == (State.FAILED, Reason.LOST, 1)
    assert begins(ledger)["ended"] == 1, "what may have been done is not done again by itself"
    wait_until(lambda: run(runs).lease_epoch > 1000, why="it is adopted")
    assert alive(shims[runs])
    assert started(homes[runs], runs).shim_pid == shims[runs]
    wait_final(fresh)
    assert output(fresh) == b"out-fresh\n"
    assert (run(waits).state, run(waits).attempt) == (State.PENDING, 1000), "it is kept back"
    Run.objects.filter(pk=waits).update(not_before=None)  # its time is over
    wait_until(lambda: run(waits).attempt == 1001, 60, why="what waited runs in the end")
    wait_started(waits)
    for gate in gates.values():
        gate.unlink(missing_ok=True)
    done = {row.pk: row for row in wait_final(runs, waits)}
    assert (done[runs].exit_code, done[runs].attempt, done[runs].crashes) == (5, 1, 0)
    assert output(runs) == b"out-runs\nmore\n"
    assert done[waits].state == State.SUCCEEDED
    assert_no_overlap(shared_folder / "ticks", "waits", 2)
    assert run(before).state == State.SUCCEEDED
    assert_invariants(cluster)


def test_what_waited_is_kept_back_and_gets_a_name_of_its_own(account: Account) -> None:
    """Catches a waiting run that starts while its earlier start may run, or is taken for it."""
    waiting = submit(account.tenant_id, "true", retries=3)
    generation = Installation.objects.get_or_create(pk=1)[0].generation
    call_command("after_restore", stdout=io.StringIO())
    row = run(waiting)
    assert (row.state, row.attempt, row.retries_left) == (State.PENDING, 1000, 3)
    assert row.not_before is not None
    assert row.expires_at is not None
    assert row.expires_at > row.not_before
    told = services.explain(account.tenant_id, waiting)
    assert told["reasons"]
    assert "restored" in row.message
    assert Installation.objects.get().generation != generation
    assert submit(account.tenant_id, "true") > waiting + 999_999
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("known", [(1, 0), (0, 5), (0, 0)])
def test_a_database_that_knows_less_of_a_node_is_refused(
    db: None, tmp_path: Path, known: tuple[int, int]
) -> None:
    """Catches a worker that starts on a backup: it would kill everything that is newer."""
    capacity = Capacity(1000, 1024, 4, ["process"], {}, True)
    first = register("n1", tmp_path, capacity)
    first.lock.close()
    second = register("n1", tmp_path, capacity)
    second.lock.close()
    Node.objects.filter(name="n1").update(incarnation=2, beats=7)
    second.beats = 7
    heartbeat(second, {}, broker_ok=True)
    incarnation, beats = known
    Node.objects.filter(name="n1").update(incarnation=1 + incarnation, beats=beats)
    with pytest.raises(DatabaseSetBack, match="after_restore"):
        register("n1", tmp_path, capacity)
    assert Node.objects.get(name="n1").incarnation == 1 + incarnation
    call_command("after_restore", stdout=io.StringIO())
    register("n1", tmp_path, capacity).lock.close()
    # Another database altogether: not an older life of the same one.
    Installation.objects.all().delete()
    Node.objects.all().delete()
    register("n1", tmp_path, capacity).lock.close()
