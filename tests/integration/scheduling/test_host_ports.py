"""Host ports on a real database: one holder per node and port, whatever happens at the same moment."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.integration.engine_rows import World, assert_books_balance, cursor, together
from workers import services
from workers.models import HostPort, Node, Run, Shape, Tenant
from workers.runs import losses
from workers.scheduling import claiming
from workers.scheduling.claiming import Memory
from workers.scheduling.explain import explain_run
from workers.scheduling.obstacles import ShapeView
from workers.scheduling.shapes import load_shapes, shape_view
from workers.vocabulary.specs import ContainerSpec
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World(cpu_m=10, mem_mb=1)


def shape(world: World, *ports: str, tenant: Tenant | None = None) -> Shape:
    return world.add_shape(tenant or world.tenant, cpu_m=10, mem_mb=1, host_ports=sorted(ports))


def held(node: Node) -> dict[str, int]:
    return dict(HostPort.objects.filter(node=node).values_list("port", "run"))


def look(node: Node, memory: Memory | None = None) -> list[int]:
    return [run.lease.run_id for run in claiming.look(node.pk, 1, memory or Memory(), 16).claimed]


def test_a_port_is_held_from_claim_to_end(world: World) -> None:
    """Whichever way the attempt leaves RUNNING."""
    node = world.node()
    runs = [world.submit(shape=shape(world, "80/tcp", "80/udp"), retries=1) for _ in range(4)]
    leaving: list[Any] = [world.finish, world.retry, world.release, world.finish]
    for leave in leaving:
        (run,) = look(node)
        lease = next(item.lease for item in world.adopt(node) if item.lease.run_id == run)
        assert held(node) == {"80/tcp": run, "80/udp": run}, "adoption keeps it"
        assert look(node) == []
        leave(lease)
        assert held(node) == {}
    assert sorted(runs) == sorted(Run.objects.values_list("pk", flat=True))
    assert_books_balance()


def test_two_nodes_two_holders(world: World) -> None:
    """The port of one node is not the port of another."""
    one, two = world.node("n1"), world.node("n2")
    runs = {world.submit(shape=shape(world, "80/tcp")) for _ in range(3)}
    first, second = look(one), look(two)
    assert len(first) == len(second) == 1
    assert look(one) == look(two) == []
    assert set(first + second) < runs


def test_a_closed_node_gives_its_ports_back(world: World) -> None:
    node = world.node()
    world.submit(shape=shape(world, "80/tcp"))
    assert look(node)
    Node.objects.update(mode="removed")
    assert losses.close_node(node.pk, "node n1 was removed", removed=True) == 1
    assert held(node) == {}
    assert Run.objects.get().reason == Reason.NODE_GONE


def test_the_schema_refuses_a_port_twice(world: World) -> None:
    """Whatever placement thinks: the claim is refused as a whole."""
    node = world.node()
    first, second = (world.submit(shape=shape(world, "80/tcp")) for _ in range(2))
    world.claim(node, first)
    with pytest.raises(IntegrityError), transaction.atomic():
        world.claim(node, second)
    assert Run.objects.get(pk=second).state == State.PENDING
    assert held(node) == {"80/tcp": first}
    assert_books_balance()


@pytest.mark.django_db(transaction=True)
def test_looks_and_ends_at_the_same_moment(world: World) -> None:
    """Three looks and the ends of what they take, all at once: no error, no deadlock, no port twice."""
    node = world.node()
    ports = [
        shape(world, f"{80 + number % 3}/tcp", *(["90/tcp"] if number % 2 else [])) for number in range(6)
    ]
    for number in range(60):
        world.submit(shape=ports[number % 6])

    def work() -> list[int]:
        done: list[int] = []
        memory = Memory()
        while Run.objects.filter(state=State.PENDING).exists():
            for run in claiming.look(node.pk, 1, memory, 4).claimed:
                taken = list(HostPort.objects.filter(run=run.lease.run_id).values_list("port", flat=True))
                assert taken
                world.finish(run.lease)
                done.append(run.lease.run_id)
        return done

    ended = [run for found in together(work, work, work) for run in found]
    assert len(ended) == len(set(ended)) == 60
    assert held(node) == {}
    assert_books_balance()


def test_a_look_without_ports_asks_nothing_more(world: World, remembered: None) -> None:
    """Host ports cost one query, and only where somebody waits for one."""
    node = world.node()
    claiming.binding_quotas([world.tenant.pk])  # remembered for seconds, whoever asks
    counts = []
    for ports in ((), ("80/tcp",)):
        world.submit(shape=shape(world, *ports))
        memory = Memory()
        load_shapes(memory.shapes, list(Shape.objects.values_list("pk", flat=True)))
        with CaptureQueriesContext(connection) as queries:
            assert look(node, memory)
        counts.append(len(queries))
        assert any("workers_hostport h" in query["sql"] for query in queries) is bool(ports)
    assert counts[1] == counts[0] + 1


def test_explain_says_who_holds_it(world: World) -> None:
    """One's own runs and other tenants' are told apart; nothing more is said of the others."""
    stranger = Tenant.objects.create(name="stranger", trusted_with_worker_account=True)
    node = world.node()
    world.claim(node, world.submit(shape=shape(world, "80/tcp")))
    mine = world.submit(shape=shape(world, "80/tcp"))
    theirs = world.submit(shape=shape(world, "80/tcp", tenant=stranger))
    for run, words in ((mine, "another of your runs"), (theirs, "another tenant's run")):
        told = explain_run(Run.objects.select_related("shape__tenant", "node").get(pk=run))["reasons"]
        assert (told[0]["code"], told[0]["message"]) == (
            "host_port",
            f"host port 80/tcp is taken on node n1 by {words}",
        )


def test_a_spec_makes_its_shape(world: World) -> None:
    """Port 0 is any port: it is no resource."""
    spec = ContainerSpec(
        image="busybox",
        ports=[
            {"container_port": 80, "host_port": 8080, "protocol": "tcp"},
            {"container_port": 53, "host_port": 5353, "protocol": "udp"},
            {"container_port": 90, "host_port": 0, "protocol": "tcp"},
        ],
    )
    run = services.submit(services.Submission(tenant_id=world.tenant.pk, family="tasks", spec=spec, name="x"))
    found = Run.objects.get(pk=run).shape
    assert found.host_ports == ["5353/udp", "8080/tcp"]
    view: ShapeView = shape_view(found)
    assert view.host_ports == {"5353/udp", "8080/tcp"}
    with cursor() as opened:
        opened.execute("SELECT count(*) FROM workers_hostport")
        assert opened.fetchone()[0] == 0
