"""A fixed port of a node is given to one container at a time; the next one waits, or goes elsewhere."""

from __future__ import annotations

from tests.acceptance.test_containers_two_engines import RACKS, two_nodes
from tests.support.cluster import Cluster
from tests.support.containers import container_of, open_policy, submit_container
from tests.support.engine import run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt
from workers.vocabulary.states import State


def test_a_host_port_is_given_once_on_a_node(
    engines: tuple[Engine, Engine], cluster: Cluster, account: Account
) -> None:
    """Catches two containers on one port of a node: the second one fails, or is offered again and again."""
    there = two_nodes(cluster, engines, cpus=4, mem_mb=2048)
    open_policy(account.tenant_id, "host_ports")
    ports = [{"container_port": 80, "host_port": 18080, "protocol": "tcp"}]
    serve = "while true; do echo $(hostname) | nc -l -p 80; done"
    run_ids = [submit_container(account.tenant_id, serve, spec={"ports": ports}, grace_s=0) for _ in range(3)]
    wait_until(lambda: sum(run(each).started_at is not None for each in run_ids) == 2, why="two run")
    running = [each for each in run_ids if run(each).started_at]
    (waiting,) = set(run_ids) - set(running)
    assert {_node(each) for each in running} == set(RACKS)
    for each in running:
        engine = there[_node(each)]
        box = container_of(engine, each)
        assert _answer(engine, 18080).strip() == box["Config"]["Hostname"]
    # It is not only late: both nodes have taken what came after it.
    later = [
        submit_container(account.tenant_id, "true", constraints={"rack_id": [rack]})
        for rack in RACKS.values()
    ]
    wait_final(*later)
    assert (run(waiting).state, run(waiting).attempt) == (State.PENDING, 0)
    assert "18080" in str(services.explain(account.tenant_id, waiting)["reasons"])
    services.cancel(account.tenant_id, running[0])
    wait_final(running[0])
    wait_started(waiting)
    assert _node(waiting) == _node(running[0])
    for each in (running[1], waiting):
        services.cancel(account.tenant_id, each)
    wait_final(*run_ids)
    assert_invariants(cluster, engines=engines)


def _node(run_id: int) -> str:
    return Attempt.objects.filter(run_id=run_id).latest("number").node.name


def _answer(engine: Engine, port: int) -> str:
    """What a published port says; the server may be between two connections."""

    def ask() -> str:
        try:
            with engine.connect(port) as link:
                return link.recv(64).decode()
        except OSError:
            return ""

    found: str = wait_until(ask, why=f"port {port} answers")
    return found
