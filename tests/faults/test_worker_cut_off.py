"""Fault 12: one worker is cut off from Postgres, briefly and for long; replies to its commits are lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.beats import (
    end_open_transactions,
    leased,
    now,
    recorded_by,
    wait_beat,
    wait_let_go,
    wait_retried,
)
from tests.support.cluster import Cluster, test_database_url
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
from tests.support.ledger import assert_no_overlap, ticking_command
from tests.support.machine import started
from tests.support.proxy import Proxy, upstream_of, url_through
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt
from workers.vocabulary.states import Reason, State


@pytest.fixture
def wire(transactional_db: None) -> Iterator[Proxy]:
    """What lies between the worker under test and Postgres."""
    with Proxy(upstream_of(test_database_url())) as proxy:
        yield proxy


def _by_way_of(wire: Proxy, **more: str) -> dict[str, str]:
    return {"DATABASE_URL": url_through(test_database_url(), wire), **more}


def _break(wire: Proxy, how: str) -> None:
    if how == "cut":
        wire.cut()
    else:
        wire.freeze()
        end_open_transactions()


def _repair(wire: Proxy, how: str) -> None:
    if how == "cut":
        wire.mend()
    else:
        wire.thaw()


@pytest.mark.parametrize("how", ["cut", "frozen"])
def test_cut_off_for_longer_than_a_lease(
    cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, how: str
) -> None:
    """Catches work that is killed, repeated or taken away although its node is not lost; a lost end."""
    cluster.env |= {"GANTRY_LEASE_S": "2", "GANTRY_NODE_LOST_AFTER_S": "120"}
    worker = cluster.node("n1", attributes="rack_id=r1", settings=_by_way_of(wire))
    ledger = open_ledger(shared_folder)
    runs: dict[str, int] = {}
    for name in ("within", "beyond"):
        gate = shared_folder / name
        gate.touch()
        body = f"while test -e {gate}; do sleep 0.05; done; echo more"
        runs[name] = submit(account.tenant_id, ledger_command(ledger, name, body, code=5), retries=1)
        wait_started(runs[name])
    cluster.node("n2", attributes="rack_id=r2", GANTRY_WAIT_BROKER="0")
    shim = started(cluster.folder / "n1", runs["beyond"]).shim_pid
    _break(wire, how)
    wait_until(lambda: not any(leased(run_id) for run_id in runs.values()), why="the leases run out")
    (shared_folder / "within").unlink()
    wait_until(lambda: "end within" in ledger.read_text(), why="one command ends meanwhile")
    wait_beat("n2")
    for run_id in runs.values():
        assert (run(run_id).state, run(run_id).attempt) == (State.RUNNING, 1)
    _repair(wire, how)
    wait_until(lambda: run(runs["within"]).attempt == 2, why="the end that was kept is recorded, and retried")
    wait_until(lambda: leased(runs["beyond"]), why="the lease is renewed")
    assert started(cluster.folder / "n1", runs["beyond"]).shim_pid == shim
    assert run(runs["beyond"]).attempt == 1
    assert worker.alive
    (shared_folder / "beyond").unlink()
    for ended in wait_final(*runs.values()):
        assert (ended.exit_code, ended.attempt, ended.retries_left) == (5, 2, 0)
        first = Attempt.objects.get(run_id=ended.pk, number=1)
        assert (first.reason, first.exit_code, first.node.name) == (Reason.EXIT_CODE, 5, "n1")
    assert begins(ledger) == {"within": 2, "beyond": 2}
    for name, run_id in runs.items():
        assert output(run_id, attempt=1) == output(run_id, attempt=2) == f"out-{name}\nmore\n".encode()
    assert_once(ledger, runs)
    assert_invariants(cluster)


@pytest.mark.parametrize("how", ["cut", "frozen"])
def test_cut_off_until_the_node_is_lost(
    cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, how: str
) -> None:
    """Catches a guard that spares the work of a lost node, and a node that insists when it is back."""
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "14"}
    victim = cluster.node("n1", attributes="rack_id=r1", settings=_by_way_of(wire, GANTRY_GUARD_MARGIN_S="7"))
    ledger, gate, broken = open_ledger(shared_folder), shared_folder / "gate", shared_folder / "broken"
    gate.touch()
    commands = {
        "mild": ticking_command(ledger, "mild", while_exists=gate),
        "deaf": ticking_command(ledger, "deaf", while_exists=gate, deaf=True),
        "ended": ticking_command(ledger, "ended", while_exists=gate, first=0, first_until=broken),
    }
    runs: dict[str, int] = {}
    for name, command in commands.items():
        runs[name] = submit(account.tenant_id, command, retries=1)
        wait_started(runs[name])
    _break(wire, how)
    broken.touch()
    cluster.node("n2", GANTRY_GUARD_MARGIN_S="1", GANTRY_WAIT_BROKER="0")
    for name, run_id in runs.items():
        wait_retried(run_id)
        assert_no_overlap(ledger, name, attempts=2)
    before = {name: recorded_by(run_id) for name, run_id in runs.items()}
    moment = now()
    _repair(wire, how)
    wait_beat("n1", moment)
    wait_let_go(victim, len(runs))
    assert {name: recorded_by(run_id) for name, run_id in runs.items()} == before
    after = submit(account.tenant_id, ledger_command(ledger, "after"), constraints={"rack_id": ["r1"]})
    wait_final(after)
    gate.unlink()
    for name, run_id in runs.items():
        (ended,) = wait_final(run_id)
        assert (ended.state, ended.attempt, ended.node and ended.node.name) == (State.SUCCEEDED, 2, "n2")
        assert recorded_by(run_id) == [(1, "n1"), (1, "reconciler"), (2, "n2"), (2, "n2")]
        assert Attempt.objects.get(run_id=run_id, number=1).reason == Reason.UNREACHABLE
        assert_no_overlap(ledger, name, attempts=2)
        assert output(run_id) == f"out-{name}\n".encode()
    assert_once(ledger, {**runs, "after": after})
    assert_truth(ledger, "after", after)
    assert_invariants(cluster)


#: The statement whose commit is not confirmed -> the text that betrays it.
_UNCONFIRMED = {
    "claim": b"INSERT INTO workers_attempt",
    "started": b"UPDATE workers_attempt a SET started_at",
    "log": b"INSERT INTO workers_logchunk",
    "end": b"closed AS (UPDATE workers_attempt",
}


@pytest.mark.parametrize("what", [*_UNCONFIRMED])
def test_a_commit_that_is_never_confirmed(
    cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, what: str
) -> None:
    """Catches a worker that repeats, or forgets, what the database has taken without being able to say so."""
    cluster.env |= {"GANTRY_LEASE_S": "4", "GANTRY_NODE_LOST_AFTER_S": "120"}
    worker = cluster.node(settings=_by_way_of(wire, GANTRY_WAIT_BROKER="0"))
    ledger = open_ledger(shared_folder)
    wire.drop_reply(_UNCONFIRMED[what], then=b"COMMIT")
    # The first end comes after the worker's first search for orphans: the next one is a minute away.
    first = shared_folder / "first"
    body = f"sleep 0.7; test -e {first} || sleep 4; touch {first}"
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", body, code=7), retries=1)
    wait_until(wire.dropped.is_set, why=f"the commit of {what} goes unconfirmed")
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 7, 2)
    assert begins(ledger) == {"a": 2}
    assert output(run_id, attempt=1) == output(run_id, attempt=2) == b"out-a\n"
    assert_once(ledger, {"a": run_id})
    assert worker.alive
    # The worker that claimed it without knowing takes it over; nobody died, so nothing is suspected of that.
    assert (what == "claim") == ("after_crash=False" in worker.text())
    assert "after_crash=True" not in worker.text()
    assert_invariants(cluster)


def test_a_slow_database(cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy) -> None:
    """Catches a worker that takes slowness for absence: nothing is lost, a cancel is honoured."""
    cluster.env |= {"GANTRY_LEASE_S": "10", "GANTRY_NODE_LOST_AFTER_S": "120"}
    cluster.node(settings=_by_way_of(wire, GANTRY_WAIT_BROKER="0"))
    ledger = open_ledger(shared_folder)
    wire.delay(0.05)
    names = {f"c{number}": number % 3 for number in range(10)}
    runs = {name: submit(account.tenant_id, ledger_command(ledger, name, "", names[name])) for name in names}
    endless = submit(account.tenant_id, "sleep 600")
    wait_started(endless)
    assert services.cancel(account.tenant_id, endless).accepted
    wait_final(*runs.values(), endless)
    assert run(endless).state == State.CANCELLED
    for name, run_id in runs.items():
        assert_truth(ledger, name, run_id, names[name])
    assert_once(ledger, runs)
    assert_invariants(cluster)


@pytest.mark.parametrize("how", ["cut", "frozen"])
def test_a_worker_that_is_cut_off_can_be_stopped(
    cluster: Cluster, account: Account, shared_folder: Path, wire: Proxy, how: str
) -> None:
    """Catches a shutdown that waits for the database for ever, or harms what runs."""
    cluster.env |= {"GANTRY_NODE_LOST_AFTER_S": "120"}
    worker = cluster.node(settings=_by_way_of(wire))
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit(account.tenant_id, ledger_command(ledger, "a", body, code=5))
    wait_started(run_id)
    shim = started(cluster.folder / "n1", run_id).shim_pid
    _break(wire, how)
    assert worker.terminate() == 0
    cluster.node(GANTRY_WAIT_BROKER="0")
    wait_until(lambda: run(run_id).lease_epoch == 2, why="the next worker adopts it")
    assert started(cluster.folder / "n1", run_id).shim_pid == shim
    gate.unlink()
    wait_final(run_id)
    assert_once(ledger, {"a": run_id})
    assert_truth(ledger, "a", run_id, 5)
    assert_invariants(cluster)
