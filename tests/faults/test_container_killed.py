"""Faults 1, 2 and 15 for containers: their worker dies, with and without its tree, and with the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.utils import timezone

from tests.support.cluster import Cluster, pids_under
from tests.support.containers import container_of, containers_of, happened, submit_container
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
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
from tests.support.machine import alive, kill
from tests.support.seeds import dice
from tests.support.waiting import wait_until
from workers.models import Attempt, Run
from workers.vocabulary.states import Reason, State


@pytest.fixture(autouse=True)
def _patient(cluster: Cluster) -> None:
    """Restarts take seconds under load: no guard and no reconciler steps in meanwhile."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    cluster.env["GANTRY_DB_POOL"] = "3"  # fewer than runs: none is kept while a run is watched


@pytest.mark.parametrize("victims", ["worker", "tree"])
def test_the_worker_dies_while_a_container_runs(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, victims: str
) -> None:
    """Catches a second container, one that dies with its worker, a lost exit code, output lost or doubled."""
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"echo before; while test -e {gate}; do sleep 0.05; done; echo after"
    run_id = submit_container(
        account.tenant_id, ledger_command(ledger, "a", body, code=5), share=shared_folder
    )
    wait_started(run_id)
    wait_until(lambda: output(run_id) == b"out-a\nbefore\n", why="the first output is stored")
    before = container_of(engine, run_id)
    main = engine.main(before["Id"])
    worker.kill()
    if victims == "tree":
        kill(*pids_under(cluster.folder))
    assert alive(main)
    cluster.node(settings=engine.env)
    wait_until(lambda: run(run_id).lease_epoch == 2, why="the next worker adopts it")
    assert container_of(engine, run_id)["Id"] == before["Id"], "I2: another container runs in its place"
    gate.unlink()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 5, 1)
    assert ended.message.startswith("Container exited with status 5")
    assert output(run_id) == b"out-a\nbefore\nafter\n"
    assert begins(ledger) == {"a": 1}
    assert_invariants(cluster, engines=[engine])
    done = happened(engine, run_id)
    assert (done["create"], done["start"], done["destroy"]) == (1, 1, 1)


def test_the_container_ends_while_no_worker_lives(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a next worker that calls lost, or repeats, what ended by itself while nobody looked."""
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit_container(account.tenant_id, ledger_command(ledger, "a", body), share=shared_folder)
    wait_started(run_id)
    worker.kill()
    gate.unlink()
    wait_until(lambda: container_of(engine, run_id)["State"]["Status"] == "exited", why="it ends by itself")
    assert run(run_id).state == State.RUNNING
    cluster.node(settings=engine.env)
    wait_final(run_id)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id)
    assert_invariants(cluster, engines=[engine])


@pytest.mark.parametrize("worker_lives", [True, False])
def test_the_container_ends_while_its_engine_is_down(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, worker_lives: bool
) -> None:
    """Fault 15. Catches success (or waiting for ever) where the exit code cannot be known, and a second run.

    What the engine still knows when it is back is the truth; what it does not is lost, and never success.
    """
    engine = mortal_engine
    engine.stop_daemon()
    engine.start_daemon(live_restore=True)
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit_container(
        account.tenant_id, ledger_command(ledger, "a", body, code=5), share=shared_folder
    )
    wait_started(run_id)
    box = container_of(engine, run_id)["Id"]
    # What the engine has not read from the container's pipe when it dies is nobody's to keep.
    wait_until(lambda: b"out-a" in engine.client.api.logs(box), why="the engine has its first word")
    if not worker_lives:
        worker.kill()
    engine.kill_daemon()
    gate.unlink()
    wait_until(lambda: not engine.pids(box), why="the container ends by itself")
    assert "end a" in ledger.read_text()
    if worker_lives:
        assert worker.alive
    else:
        cluster.node(settings=engine.env)
    assert run(run_id).state == State.RUNNING, "nobody can know yet how it ended"
    engine.start_daemon(live_restore=True)
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.attempt) == (State.FAILED, 1)
    assert ended.exit_code == 5 or ended.reason == Reason.LOST, f"it claims {ended.message}"
    assert begins(ledger) == {"a": 1}
    assert output(run_id) == b"out-a\n"
    assert_invariants(cluster, engines=[engine])


@pytest.mark.parametrize("worker_lives", [True, False])
def test_a_container_that_somebody_removed_is_lost(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, worker_lives: bool
) -> None:
    """Catches success (or waiting for ever) where nobody can know the exit code; a retry that is not made."""
    worker = cluster.node(settings=engine.env)
    ledger = open_ledger(shared_folder)
    hold = shared_folder / "hold"
    hold.touch()
    body = f"while test -e {hold}; do sleep 0.05; done"
    plain = submit_container(account.tenant_id, ledger_command(ledger, "plain", body), share=shared_folder)
    again = submit_container(
        account.tenant_id, ledger_command(ledger, "again", body), share=shared_folder, retries=1
    )
    for run_id in (plain, again):
        wait_started(run_id)
    wait_begun(ledger, "plain")
    wait_until(lambda: output(again) == b"out-again\n", why="the output so far is stored")
    if not worker_lives:
        worker.kill()
    for run_id in (plain, again):
        engine.client.api.remove_container(container_of(engine, run_id)["Id"], force=True)
    if not worker_lives:
        cluster.node(settings=engine.env)
    (lost,) = wait_final(plain)
    # Who looks in the moment between its death and its removal finds the 137 of a kill, and may say so.
    allowed = [(Reason.LOST, None)] + ([(Reason.EXIT_CODE, 137)] if worker_lives else [])
    assert lost.state == State.FAILED
    assert (lost.reason, lost.exit_code) in allowed
    assert ("outcome is unknown" in lost.message) == (lost.reason == Reason.LOST)
    wait_until(lambda: run(again).attempt == 2 and run(again).started_at, why="the next try runs")
    hold.unlink()
    (mended,) = wait_final(again)
    assert (mended.state, mended.attempt, mended.retries_left) == (State.SUCCEEDED, 2, 0)
    first = Attempt.objects.get(run_id=again, number=1)
    assert (first.state, (first.reason, first.exit_code) in allowed) == (State.FAILED, True)
    assert output(again, attempt=1) == b"out-again\n", "I6: what the lost attempt had written"
    assert_once(ledger, {"plain": plain, "again": again})
    assert_invariants(cluster, engines=[engine])


def test_orphans_of_this_node_only_are_removed(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches a search for orphans that spares ours, or takes what belongs to others on the same engine."""
    worker = cluster.node("n1", attributes="rack_id=r1", settings=engine.env)
    script = "sleep 600"
    orphan = submit_container(account.tenant_id, script, constraints={"rack_id": ["r1"]})
    wait_started(orphan)
    made = container_of(engine, orphan)
    worker.kill()
    labels = {**made["Config"]["Labels"], "gantry.installation": "somebody-else"}
    foreign = engine.client.api.create_container(
        made["Image"], ["sleep", "600"], labels=labels, name="foreign"
    )
    plain = engine.client.api.create_container(made["Image"], ["sleep", "600"], name="plain")
    for each in (foreign, plain):
        engine.client.api.start(each)
    cluster.node("n2", attributes="rack_id=r2", settings=engine.env, GANTRY_WAIT_BROKER="0")
    other = submit_container(account.tenant_id, script, constraints={"rack_id": ["r2"]}, grace_s=0)
    wait_started(other)
    # The database forgets the run, as when it was closed elsewhere while this node was away.
    Run.objects.filter(pk=orphan).update(
        state=State.FAILED, reason=Reason.UNREACHABLE, finished_at=timezone.now(), node=None,
        lease_until=None,
    )  # fmt: skip
    cluster.node("n1", attributes="rack_id=r1", settings=engine.env, GANTRY_WAIT_BROKER="0")
    wait_until(
        lambda: made["Id"] not in [found["Id"] for found in containers_of(engine, orphan)],
        why="the orphan is removed",
    )
    assert container_of(engine, other)["State"]["Running"]
    for name in ("foreign", "plain"):
        assert engine.client.api.inspect_container(name)["State"]["Running"], f"{name} is not ours"


def test_workers_killed_at_random_moments(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Fault 1 at phases that nobody chose: short containers under a worker that dies three times."""
    _killed_at_random(engine, cluster, account, shared_folder, deaths=3)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_workers_killed_at_random_moments_for_long(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """The same with 25 deaths."""
    _killed_at_random(engine, cluster, account, shared_folder, deaths=25)


def _wait_begun(ledger: Path, how_many: int) -> None:
    wait_until(lambda: len(begins(ledger)) >= how_many, 60, 0.005, why=f"{how_many} containers have begun")


def _killed_at_random(
    engine: Engine, cluster: Cluster, account: Account, folder: Path, *, deaths: int
) -> None:
    chance = dice(f"workers of containers killed, {deaths} deaths")
    ledger = open_ledger(folder)
    names: dict[str, int] = {}
    codes: dict[str, int] = {}
    calm = {**engine.env, "GANTRY_MAX_CRASHES": "1000"}
    worker = cluster.node(settings=calm)
    for death in range(deaths):
        moment = len(begins(ledger)) + chance.randrange(1, 6)
        for number in range(6):
            name = f"c{death}-{number}"
            codes[name] = chance.choice([0, 0, 7])
            body = f"sleep {chance.uniform(0, 0.8):.2f}"
            command = ledger_command(ledger, name, body, codes[name])
            names[name] = submit_container(account.tenant_id, command, share=folder)
        _wait_begun(ledger, moment)
        worker.kill()
        worker = cluster.node(settings=calm, GANTRY_WAIT_BROKER=chance.choice("01"))
    wait_final(*names.values(), timeout_s=120)
    assert_once(ledger, names)
    for name, run_id in names.items():
        assert_truth(ledger, name, run_id, codes[name])
    assert not Run.objects.filter(attempt__gt=1).exists()
    assert_invariants(cluster, engines=[engine])
