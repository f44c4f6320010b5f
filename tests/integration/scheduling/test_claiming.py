"""One look of a node's agent at real rows: what it takes, what it leaves, what it keeps the node for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from tests.integration.engine_rows import World, assert_books_balance, row
from workers.models import Node, Run, Shape, Tenant
from workers.scheduling import claiming, explain
from workers.scheduling.claiming import Look, Memory, Superseded
from workers.scheduling.obstacles import obstacles
from workers.scheduling.reasons import reasons
from workers.scheduling.shapes import shape_view
from workers.vocabulary.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]


def look(node: Node, memory: Memory | None = None, limit: int = 16) -> Look:
    node.refresh_from_db()
    return claiming.look(node.pk, node.incarnation, memory or Memory(), limit)


def taken(found: Look) -> list[int]:
    return [item.lease.run_id for item in found.claimed]


# --- what it takes ------------------------------------------------------------------------------------------


def test_a_look_takes_what_fits_in_order_and_says_whether_more_may_wait(world: World) -> None:
    node = world.node(cpu_m=5000)
    run_ids = [world.submit() for _ in range(8)]
    first, second, third = look(node, limit=3), look(node, limit=3), look(node, limit=3)
    assert (taken(first), first.more) == (run_ids[:3], True)
    assert (taken(second), second.more) == (run_ids[3:5], False)
    assert (taken(third), third.more) == ([], False)
    assert_books_balance()


def test_a_look_takes_no_more_than_the_nodes_slots(world: World) -> None:
    """Catches: a node with thousands of tiny runs and no thread left for any of them."""
    node = world.node(slots=2)
    run_ids = [world.submit() for _ in range(3)]
    assert taken(look(node)) == run_ids[:2]


@pytest.mark.parametrize(
    "change",
    [{"mode": "draining"}, {"mode": "removed"}, {"trouble": "only 3 MiB free"}],
    ids=lambda item: next(iter(item)),
)
def test_a_node_that_takes_no_work_still_hears_of_cancels(world: World, change: dict[str, Any]) -> None:
    """Catches: a draining node that cannot be told to stop what it runs."""
    node = world.node()
    lease = world.claimed(node)
    world.request_cancel(lease.run_id, operator=True)
    world.submit()
    Node.objects.filter(pk=node.pk).update(**change)
    found = look(node)
    assert (found.claimed, found.cancels, found.mode) == ([], [(lease, True)], change.get("mode", "ready"))


def test_another_worker_of_the_same_name_is_told_to_stop(world: World) -> None:
    node = world.node()
    world.submit()
    for incarnation in (node.incarnation - 1, node.incarnation + 1):
        with pytest.raises(Superseded):
            claiming.look(node.pk, incarnation, Memory(), 16)
    assert row(Run.objects.get().pk).state == State.PENDING


def test_what_is_too_large_or_elsewhere_holds_up_nothing(world: World) -> None:
    """Catches: a run that no node can ever take, at the head of the queue, and a node kept for it."""
    node = world.node(cpu_m=2000)
    memory = Memory()
    huge = world.submit(shape=world.add_shape(world.tenant, cpu_m=64_000, mem_mb=1))
    elsewhere = world.submit(
        shape=world.add_shape(world.tenant, cpu_m=1000, mem_mb=1, constraints={"rack_id": ["r9"]})
    )
    small = [world.submit() for _ in range(3)]
    assert taken(look(node, memory)) == small[:2]
    assert memory.passed_over.keys().isdisjoint({huge, elsewhere})


def test_a_hundred_shapes_that_do_not_fit_now_do_not_hide_one_that_does(world: World) -> None:
    """Catches: a look that considers the oldest shapes only, so that a node with room stands idle."""
    node = world.node()
    world.claimed(node, shape=world.add_shape(world.tenant, cpu_m=7000, mem_mb=1))
    for number in range(100):
        world.submit(shape=world.add_shape(world.tenant, cpu_m=2000, mem_mb=number + 1))
    small = world.submit()
    assert taken(look(node)) == [small]


def test_many_shapes_of_one_tenant_do_not_hide_another_tenant(world: World) -> None:
    """Catches: the oldest shapes are all of the tenant that submitted first."""
    node = world.node(cpu_m=2000)
    for number in range(100):
        world.submit(shape=world.add_shape(world.tenant, cpu_m=1000, mem_mb=number + 1))
    other = Tenant.objects.create(name="other", trusted_with_worker_account=True)
    late = world.submit(shape=world.add_shape(other, cpu_m=1000, mem_mb=1))
    assert late in taken(look(node))


@hypothesis_settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties the tables itself
)
@given(
    node=st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["ready", "ready", "draining", "removed"]),
            "trouble": st.sampled_from(["", "", "disk full"]),
            "runtimes": st.sampled_from([["process"], ["container"], ["process", "container"]]),
            "isolates_users": st.booleans(),
            "cpu_m_used": st.integers(0, 8).map(lambda n: n * 1000),
            "mem_mb_used": st.integers(0, 8).map(lambda n: n * 128),
            "slots_used": st.integers(0, 2),
        }
    ),
    shape=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["process", "container"]),
            "cpu_m": st.sampled_from([500, 1000, 8000, 16_000]),
            "mem_mb": st.sampled_from([64, 512, 1024, 4096]),
            "constraints": st.sampled_from([{}, {"rack_id": ["r-n1"]}, {"rack_id": ["r9"]}, {"zone": ["a"]}]),
        }
    ),
    trusted=st.booleans(),
)
def test_explain_says_nothing_is_in_the_way_exactly_when_a_look_takes_it(
    db: None, node: dict[str, Any], shape: dict[str, Any], trusted: bool
) -> None:
    """Catches: two definitions of "may take". Explain's verdict is asked first, then the node looks."""
    for model in (Run, Node, Shape):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM workers_attempt; DELETE FROM workers_runevent")
        model.objects.all().delete()
    world = World()
    Tenant.objects.filter(pk=world.tenant.pk).update(trusted_with_worker_account=trusted)
    world.tenant.refresh_from_db()
    machine = world.node(cpu_m=8000, mem_mb=1024, slots=2, **node)
    wanted = world.add_shape(world.tenant, **shape)
    run_id = world.submit(shape=wanted)
    views = [view for view in explain.node_views(-1.0) if view.id == machine.pk]
    told = reasons(shape_view(Shape.objects.select_related("tenant").get(pk=wanted.pk)), views)
    assert bool(taken(look(machine))) == (not told)
    if views:
        in_the_way = obstacles(shape_view(Shape.objects.select_related("tenant").get(pk=wanted.pk)), views[0])
        assert bool(told) == bool(in_the_way)
    assert row(run_id).state == (State.PENDING if told else State.RUNNING)


# --- what it keeps the node for -----------------------------------------------------------------------------


class Contest:
    """A full node, small runs that come and go, and one large run that needs the whole node."""

    def __init__(self, world: World, settings: Settings) -> None:
        settings.GANTRY_RESERVE_AFTER_S = 0.0
        self.world = world
        self.node = world.node("n1", cpu_m=4000)
        self.memory = Memory()
        self.running = [world.claimed(self.node) for _ in range(4)]
        self.large = world.submit(shape=world.add_shape(world.tenant, cpu_m=4000, mem_mb=1))
        self.small = [world.submit() for _ in range(8)]

    def one_ends(self, node: Node | None = None, memory: Memory | None = None) -> list[int]:
        """One small run ends, then the node looks; what it took."""
        self.world.finish(self.running.pop(0))
        found = look(node or self.node, memory or self.memory)
        self.running += [item.lease for item in found.claimed if item.lease.run_id != self.large]
        return taken(found)

    def reserved(self) -> dict[str, int | None]:
        return dict(Node.objects.values_list("name", "reserved_for_id"))


@pytest.fixture
def contest(world: World, settings: Settings) -> Contest:
    return Contest(world, settings)


def test_what_was_passed_over_too_long_gets_what_becomes_free(contest: Contest) -> None:
    """The life of a reservation. Catches: small runs that go on to take it, one that is never lifted."""
    assert contest.one_ends() == contest.small[:1]
    assert contest.reserved() == {"n1": None}
    for _ in range(3):
        assert contest.one_ends() == []
        assert contest.reserved() == {"n1": contest.large}
    assert contest.one_ends() == [contest.large]
    assert contest.reserved() == {"n1": None}


def test_other_nodes_go_on_meanwhile(contest: Contest) -> None:
    """Catches: one large run that empties two nodes."""
    other, memory = contest.world.node("n2", cpu_m=4000), Memory()
    blockers = [contest.world.claimed(other) for _ in range(3)]
    contest.one_ends()
    contest.one_ends()
    assert contest.reserved() == {"n1": contest.large, "n2": None}
    for expected in contest.small[1:3]:
        assert taken(look(other, memory, limit=1)) == [expected]
        contest.world.finish(blockers.pop())
    assert contest.reserved() == {"n1": contest.large, "n2": None}


def test_a_reservation_ends_with_its_run(contest: Contest) -> None:
    """Catches: a node that stays empty for a run that was cancelled."""
    contest.one_ends()
    contest.one_ends()
    contest.world.cancel(contest.large)
    assert contest.one_ends() == contest.small[1:3]
    assert contest.reserved() == {"n1": None}


def test_a_reservation_ends_when_another_node_took_the_run(contest: Contest) -> None:
    contest.one_ends()
    contest.one_ends()
    other = contest.world.node("n2", cpu_m=4000)
    assert contest.large in taken(look(other))
    contest.one_ends()
    assert contest.reserved() == {"n1": None, "n2": None}


@pytest.mark.parametrize("fate", ["silent", "detached", "troubled", "draining"])
def test_a_reservation_of_a_node_that_takes_no_work_passes_to_another(contest: Contest, fate: str) -> None:
    """Catches starvation: a large run waits for a machine that is dead, no other may be kept for it."""
    contest.one_ends()
    contest.one_ends()
    assert contest.reserved() == {"n1": contest.large}
    other, memory = contest.world.node("n2", cpu_m=4000), Memory()
    blockers = [contest.world.claimed(other) for _ in range(3)]
    if fate == "silent":
        Node.objects.filter(name="n1").update(heartbeat_at=timezone.now() - timedelta(hours=1))
    elif fate == "detached":
        Node.objects.filter(name="n1").update(detached=True)
    elif fate == "troubled":
        Node.objects.filter(name="n1").update(trouble="disk full")
    else:
        Node.objects.filter(name="n1").update(mode=Node.Mode.DRAINING)
    assert len(taken(look(other, memory, limit=1))) == 1
    contest.world.finish(blockers.pop())
    assert taken(look(other, memory, limit=1)) == []
    assert contest.reserved() == {"n1": None, "n2": contest.large}


def test_a_large_run_behind_another_tenants_queue_is_passed_over_too(
    world: World, settings: Settings
) -> None:
    """Catches: rank alone decides who was passed over; then a long queue of another tenant goes first."""
    settings.GANTRY_RESERVE_AFTER_S = 0.0
    node, memory = world.node(cpu_m=4000), Memory()
    for _ in range(12):
        world.submit()
    other = Tenant.objects.create(name="other", trusted_with_worker_account=True)
    running = [item.lease for item in look(node, memory).claimed]
    large = world.submit(shape=world.add_shape(other, cpu_m=4000, mem_mb=1))
    world.finish(running.pop())
    running += [item.lease for item in look(node, memory).claimed]
    assert len(running) == 4
    world.finish(running.pop())
    assert taken(look(node, memory)) == []
    assert Node.objects.get(name="n1").reserved_for_id == large
