"""Three nodes, of which an operator removes some, or one falls silent: what becomes of their work."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.acceptance.three import RACKS, node_of, reasons, three_nodes
from tests.support.cluster import Cluster, Process
from tests.support.engine import run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, open_ledger
from tests.support.ledger import assert_no_overlap, ticking_command
from tests.support.waiting import limit, wait_until
from workers import services
from workers.models import Attempt, Node
from workers.vocabulary.states import Reason, State


@pytest.mark.timeout(600)
def test_removed_nodes(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Of three nodes one is removed, then another; the first one comes back, and is removed by force."""
    cluster.env["GANTRY_LOOK_S"] = "5"
    nodes = three_nodes(cluster)
    ledger = open_ledger(shared_folder)
    first = a_removed_node_kills_what_it_runs(
        cluster, account, nodes, ["n1", "n2"], ledger, told="by its heartbeat"
    )
    left = [name for name in RACKS if name != first]
    a_removed_node_kills_what_it_runs(cluster, account, nodes, left, ledger, told="at once")
    again = a_removed_node_comes_back_when_an_operator_says_so(cluster, account, nodes[first], first)
    removing_a_silent_node_by_force_closes_its_work_at_once(account, again, first)


def a_removed_node_kills_what_it_runs(
    cluster: Cluster, account: Account, nodes: dict[str, Process], two: list[str], ledger: Path, told: str
) -> str:
    """Catches: work that goes on on a node that was taken out, or two attempts of it at once.

    Removes one of the two; the other takes over what may run there. Returns which one. With the broker away
    nobody rings: the node learns it from its own heartbeat.
    """
    gate = ledger.parent / "gate"
    gate.touch()
    name = "-".join(two)
    tick = ticking_command(ledger, name, while_exists=gate, deaf=True)
    racks = {"rack_id": [RACKS[name] for name in two]}
    retried = submit(account.tenant_id, tick, constraints=racks, retries=1, grace_s=1)
    wait_started(retried)
    first = node_of(retried)
    alone = submit(account.tenant_id, "sleep 600", constraints={"rack_id": [RACKS[first]]})
    wait_started(alone)
    if told == "at once":
        services.remove_node(first)
    else:
        Node.objects.filter(name=first).update(mode=Node.Mode.REMOVED)
    (ended,) = wait_final(alone)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.NODE_GONE)
    assert ended.message == "Command was killed: its node was removed"
    wait_until(lambda: run(retried).attempt == 2 and run(retried).started_at, why="it runs on the other node")
    assert {first, node_of(retried, 2)} == set(two)
    gate.unlink()
    (again,) = wait_final(retried)
    assert again.state == State.SUCCEEDED
    assert Attempt.objects.get(run_id=retried, number=1).reason == Reason.NODE_GONE
    assert_no_overlap(ledger, name, attempts=2)
    assert nodes[first].alive
    nowhere = submit(account.tenant_id, "true", constraints={"rack_id": [RACKS[first]]})
    assert reasons(account.tenant_id, nowhere) == [f"no node has rack_id in [{RACKS[first]}]"]
    services.cancel(account.tenant_id, nowhere)
    assert_invariants(cluster)
    return first


def a_removed_node_comes_back_when_an_operator_says_so(
    cluster: Cluster, account: Account, removed: Process, name: str
) -> Process:
    """Catches: a machine that was taken out and joins again by itself at its next boot."""
    attributes = f"rack_id={RACKS[name]}"
    removed.terminate()
    again = cluster.node(name, attributes=attributes, wait=False)
    assert again.popen.wait(limit(60)) != 0
    assert (
        f"node {name} was removed by an operator: undrain it with force=1 first, or use another name"
        in again.text()
    )
    services.set_node_mode(name, "ready", force=True)
    node = cluster.node(name, attributes=attributes)
    run_id = submit(account.tenant_id, "true", constraints={"rack_id": [RACKS[name]]})
    (ended,) = wait_final(run_id)
    assert ended.state == State.SUCCEEDED
    assert_invariants(cluster)
    return node


def removing_a_silent_node_by_force_closes_its_work_at_once(
    account: Account, node: Process, name: str
) -> None:
    """Catches: an operator's word that is not taken, or work that is closed without a reason."""
    run_id = submit(account.tenant_id, "sleep 600", constraints={"rack_id": [RACKS[name]]})
    wait_started(run_id)
    node.kill()
    services.remove_node(name, force=True)
    found = run(run_id)
    assert (found.state, found.reason, found.message) == (
        State.FAILED, Reason.NODE_GONE, f"node {name} was removed by an operator",
    )  # fmt: skip


def test_a_silent_node_is_told_of_and_its_work_goes_elsewhere(
    cluster: Cluster, account: Account, shared_folder: Path, settings: Settings
) -> None:
    """Catches: an operator who is told nothing, work that is never given up, two attempts at once."""
    settings.GANTRY_LEASE_S, settings.GANTRY_NODE_LOST_AFTER_S = (
        3,
        20,
    )  # as the nodes have it: explain reads them
    cluster.env |= {
        "GANTRY_LEASE_S": "3",
        "GANTRY_NODE_LOST_AFTER_S": "20",
        "GANTRY_GUARD_MARGIN_S": "4",
    }
    ledger, gate = open_ledger(shared_folder), shared_folder / "gate"
    gate.touch()
    nodes = three_nodes(cluster)
    tick = ticking_command(ledger, "a", while_exists=gate)
    retried = submit(account.tenant_id, tick, constraints={"rack_id": ["r1", "r2"]}, retries=1)
    wait_started(retried)
    first = node_of(retried)
    alone = submit(account.tenant_id, "sleep 600", constraints={"rack_id": [RACKS[first]]})
    wait_started(alone)
    nodes[first].kill()
    waiting = submit(account.tenant_id, "true", constraints={"rack_id": [RACKS[first]]})
    told = wait_until(
        lambda: [text for text in reasons(account.tenant_id, alone) if "silent" in text], why="it is told"
    )
    assert told[0].startswith(f"node {first} has been silent for ")
    assert "the attempt is given up in " in told[0]
    assert reasons(account.tenant_id, waiting)[0].startswith(f"node {first} has been silent for ")
    (ended,) = wait_final(alone)
    assert (ended.state, ended.reason) == (State.FAILED, Reason.UNREACHABLE)
    assert ended.message.startswith(f"node {first} has been silent for ")
    wait_until(lambda: run(retried).attempt == 2 and run(retried).started_at, why="it runs on the other node")
    assert node_of(retried, 2) != first
    gate.unlink()
    wait_final(retried)
    assert_no_overlap(ledger, "a", attempts=2)
    cluster.node(first, attributes=f"rack_id={RACKS[first]}")
    (taken,) = wait_final(waiting)
    assert taken.state == State.SUCCEEDED
    assert_invariants(cluster)
