"""Faults 3, 9, 11 and 12 for containers: the worker stands still, or has no broker or database."""

from __future__ import annotations

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
from tests.support.cluster import Cluster, frozen, test_database_url
from tests.support.containers import container_of, submit_container
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
from tests.support.ledger import CONTAINER, assert_no_overlap, ticking_command
from tests.support.outages import patiently, postgres_down, restart_redis
from tests.support.proxy import Proxy, upstream_of, url_through
from tests.support.waiting import wait_until
from workers.models import Attempt, Run
from workers.node.clearance import DATABASE_AWAY
from workers.vocabulary.states import Reason, State

#: The guard of the node that will be lost kills early; the one of the survivor late, whatever the load.
_VICTIM = {"GANTRY_NODE_LOST_AFTER_S": "16", "GANTRY_GUARD_MARGIN_S": "8"}
_SURVIVOR = {"GANTRY_NODE_LOST_AFTER_S": "16", "GANTRY_GUARD_MARGIN_S": "1", "GANTRY_WAIT_BROKER": "0"}


def test_frozen_beyond_its_lease(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches somebody else who touches a container because only its lease ran out; one killed too early."""
    cluster.env |= {"GANTRY_LEASE_S": "2", "GANTRY_NODE_LOST_AFTER_S": "60"}
    worker = cluster.node("n1", attributes="rack_id=r1", settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done"
    run_id = submit_container(
        account.tenant_id, ledger_command(ledger, "a", body, code=5), share=shared_folder
    )
    other = shared_folder / "other"
    other.touch()
    body = f"while test -e {other}; do sleep 0.05; done"
    meanwhile = submit_container(
        account.tenant_id, ledger_command(ledger, "meanwhile", body), share=shared_folder
    )
    wait_started(run_id)
    wait_started(meanwhile)
    box = container_of(engine, run_id)["Id"]
    cluster.node("n2", attributes="rack_id=r2", settings=engine.env, GANTRY_WAIT_BROKER="0")
    with frozen(worker):
        wait_until(lambda: not leased(run_id), why="the lease runs out")
        wait_beat("n2")
        assert Run.objects.filter(state=State.RUNNING, node__name="n1").count() == 2
        other.unlink()
        wait_until(lambda: "end meanwhile" in ledger.read_text(), why="one of them ends meanwhile")
    wait_until(lambda: leased(run_id), why="it renews its lease")
    assert container_of(engine, run_id)["Id"] == box
    gate.unlink()
    for ended in wait_final(run_id, meanwhile):
        assert (ended.attempt, ended.node and ended.node.name) == (1, "n1")
    assert_once(ledger, {"a": run_id, "meanwhile": meanwhile})
    assert_truth(ledger, "a", run_id, 5)
    assert_truth(ledger, "meanwhile", meanwhile)
    assert_invariants(cluster, engines=[engine])


@pytest.mark.parametrize("how", ["worker frozen", "database cut"])
def test_lost_with_its_node(
    engines: tuple[Engine, Engine], cluster: Cluster, account: Account, shared_folder: Path, how: str
) -> None:
    """Fault 12. Catches a guard that spares the containers of a lost node, or comes too late; a node that
    insists when it is back."""
    one, other = engines
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    with Proxy(upstream_of(test_database_url())) as wire:
        url = url_through(test_database_url(), wire)
        victim = cluster.node(
            "n1", attributes="rack_id=r1", settings={**one.env, **_VICTIM, "DATABASE_URL": url}
        )
        runs = {
            name: submit_container(
                account.tenant_id,
                ticking_command(ledger, name, while_exists=gate, deaf=deaf, voice=CONTAINER),
                share=shared_folder,
                retries=1,
            )
            for name, deaf in (("mild", False), ("deaf", True))
        }
        for run_id in runs.values():
            wait_started(run_id)
        if how == "worker frozen":
            victim.freeze()
            end_open_transactions()
        else:
            wire.cut()
        cluster.node("n2", attributes="rack_id=r2", settings={**other.env, **_SURVIVOR})
        for name, run_id in runs.items():
            wait_retried(run_id)
            assert_no_overlap(ledger, name, attempts=2)
        before = {name: recorded_by(run_id) for name, run_id in runs.items()}
        moment = now()
        if how == "worker frozen":
            victim.thaw()
        else:
            wire.mend()
        wait_beat("n1", moment)
        wait_let_go(victim, len(runs))
        assert {name: recorded_by(run_id) for name, run_id in runs.items()} == before
        gate.unlink()
        for name, run_id in runs.items():
            (ended,) = wait_final(run_id)
            assert (ended.state, ended.attempt, ended.node and ended.node.name) == (State.SUCCEEDED, 2, "n2")
            assert Attempt.objects.get(run_id=run_id, number=1).reason == Reason.UNREACHABLE
            assert_no_overlap(ledger, name, attempts=2)
            assert output(run_id) == f"out-{name}\n".encode()
        assert_once(ledger, runs)
        assert_invariants(cluster, engines=engines)


def test_the_database_and_the_broker_are_restarted(
    engine: Engine, cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Faults 9 and 11. Catches a container that is killed, repeated or forgotten since a server was away."""
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"
    worker = cluster.node(settings=engine.env)
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    body = f"while test -e {gate}; do sleep 0.05; done; echo after"
    long = submit_container(
        account.tenant_id, ledger_command(ledger, "long", body, code=5), share=shared_folder
    )
    wait_started(long)
    box = container_of(engine, long)["Id"]
    runs: dict[str, int] = {}
    for round_ in range(4):
        for number in range(3):
            name = f"c{round_}-{number}"
            runs[name] = submit_container(
                account.tenant_id, ledger_command(ledger, name, "sleep 0.3"), share=shared_folder
            )
        if round_ % 2:
            with postgres_down():
                pass
        else:
            restart_redis(0.2)
        wait_until(patiently(lambda: run(long).state), why="the database is back")
    for ended in wait_final(*runs.values()):
        assert ended.state == State.SUCCEEDED, ended.message
        # One that needed the database before it started, and did not get it, was given back.
        earlier = Attempt.objects.filter(run_id=ended.pk, number__lt=ended.attempt)
        found = set(earlier.values_list("reason", "message", "started_at"))
        assert found <= {(Reason.DROPPED, DATABASE_AWAY, None)}
    assert container_of(engine, long)["Id"] == box
    gate.unlink()
    (ended,) = wait_final(long)
    assert (ended.exit_code, ended.attempt) == (5, 1)
    assert begins(ledger) == dict.fromkeys((*runs, "long"), 1)
    for name, run_id in runs.items():
        assert_truth(ledger, name, run_id)
    assert worker.alive
    assert_invariants(cluster, engines=[engine])
