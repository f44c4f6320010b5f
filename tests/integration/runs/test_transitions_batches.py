"""Transitions of many runs at once, and what the schema refuses whoever asks."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction

from tests.integration.engine_rows import World, assert_books_balance, cursor, events, row, snapshot
from workers.models import Node, Run, RunEvent
from workers.runs import running, transitions
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]


# --- many at once -----------------------------------------------------------------------------------------


def test_a_batch_moves_those_that_it_may_and_leaves_the_others(world: World, node: Node) -> None:
    """Catches: one stale lease that spoils its neighbours' writes; books that mix up two nodes."""
    other = world.node("n2")
    here, there, stale, waiting, done = (
        world.claimed(node), world.claimed(other), world.claimed(node), world.submit(), world.claimed(node),
    )  # fmt: skip
    world.finish(done)
    old = Lease(stale.run_id, 1, 0)
    leases = [there, old, Lease(waiting, 0, 0), done, here]
    assert (
        world.renew(*leases) == world.held(*leases) == world.started(*leases) == {here.run_id, there.run_id}
    )
    with cursor() as opened:
        ended = transitions.finish(
            opened, [Outcome(lease, State.FAILED, exit_code=lease.run_id % 7) for lease in leases], by="n1"
        )
    assert ended == {here.run_id, there.run_id}
    assert [row(item.run_id).exit_code for item in (here, there)] == [here.run_id % 7, there.run_id % 7]
    assert row(stale.run_id).state == State.RUNNING
    assert row(waiting).state == State.PENDING
    assert row(done.run_id).state == State.SUCCEEDED
    node.refresh_from_db()
    other.refresh_from_db()
    assert (node.slots_used, other.slots_used) == (1, 0)
    assert_books_balance()


def test_the_same_run_twice_in_a_batch_counts_once(world: World, node: Node) -> None:
    """Catches: resources freed twice, two events for one transition."""
    run_id = world.submit(retries=1)
    assert len(world.claim(node, run_id, run_id)) == 1
    lease = Lease(run_id, 1, 1)
    with cursor() as opened:
        transitions.finish(opened, [Outcome(lease, State.SUCCEEDED)] * 2, by="n1")
    assert len(events(run_id)) == 2
    assert_books_balance()


def test_an_empty_batch_is_nothing(world: World, node: Node) -> None:
    before = snapshot()
    with cursor() as opened:
        assert transitions.claim(opened, node.pk, node.name, []) == []
        assert transitions.adopt(opened, node.pk, [], crashed=False) == []
        assert running.renew(opened, []) == running.held(opened, []) == set()
        assert running.may_start(opened, []) == {}
        assert running.started(opened, []) == transitions.finish(opened, [], by="n1") == set()
        assert transitions.retry(opened, [], by="n1") == transitions.release(opened, [], by="n1") == set()
        assert transitions.cancel(opened, [], by="c", operator=False) == set()
        assert transitions.reject(opened, [], "no", by="n1") == set()
    assert snapshot() == before


def test_a_large_batch_is_done_whole(world: World) -> None:
    """Catches: a hidden limit: the 1,001st run of a cancel would stay waiting."""
    first = world.submit()
    with connection.cursor() as opened:
        opened.execute(
            """INSERT INTO workers_run (tenant_id, family, kind, name, owner_id, shape_id, spec, priority,
                   rank, retries_left, grace_s)
               SELECT tenant_id, family, kind, name, owner_id, shape_id, spec, priority, rank, 0, 10
               FROM workers_run, generate_series(1, 1200) WHERE id = %s""",
            [first],
        )
    run_ids = list(Run.objects.values_list("id", flat=True))
    assert len(world.cancel(*run_ids)) == 1201
    assert RunEvent.objects.count() == 1201


# --- what the schema itself refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu_m", "mem_mb", "constraint"), [(3000, 100, "node_cpu"), (100, 700, "node_mem")], ids=["cpu", "mem"]
)
def test_a_claim_over_capacity_is_refused_as_a_whole(cpu_m: int, mem_mb: int, constraint: str) -> None:
    """Catches: an oversubscribed node, should the choice of runs ever be wrong."""
    world = World(cpu_m=cpu_m, mem_mb=mem_mb)
    node = world.node(cpu_m=8000, mem_mb=2000)
    world.claimed(node)
    run_ids = [world.submit() for _ in range(2)]
    before = snapshot()
    with pytest.raises(IntegrityError, match=constraint):
        world.claim(node, *run_ids)
    assert snapshot() == before
    assert len(world.claim(node, run_ids[0])) == 1


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE workers_node SET cpu_m_used = cpu_m_total + 1", "node_cpu"),
        ("UPDATE workers_node SET cpu_m_used = -1", "node_cpu"),
        ("UPDATE workers_node SET cpu_m_total = cpu_m_used - 1", "node_cpu"),
        ("UPDATE workers_node SET mem_mb_used = mem_mb_total + 1", "node_mem"),
        ("UPDATE workers_node SET mem_mb_used = -1", "node_mem"),
        ("UPDATE workers_node SET slots_used = -1", "node_slots"),
        ("UPDATE workers_run SET lease_until = NULL", "run_leased_iff_running"),
        ("UPDATE workers_run SET node_id = NULL", "run_leased_iff_running"),
        ("UPDATE workers_run SET state = 'PENDING'", "run_leased_iff_running"),
        ("UPDATE workers_run SET finished_at = now()", "run_finished_iff_final"),
        ("UPDATE workers_run SET state = 'FAILED', lease_until = NULL", "run_finished_iff_final"),
        ("UPDATE workers_run SET state = 'SLEEPING', lease_until = NULL", "run_state_known"),
        ("UPDATE workers_run SET priority = 10", "run_priority_range"),
        ("UPDATE workers_run SET priority = -1", "run_priority_range"),
        ("INSERT INTO workers_attempt (run_id, number, node_id) SELECT id, 1, node_id FROM workers_run",
         "attempt_once"),
    ],
)  # fmt: skip
def test_the_schema_refuses(world: World, node: Node, statement: str, constraint: str) -> None:
    """Catches: an invariant that only the code knows."""
    world.claimed(node)
    before = snapshot()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic(), connection.cursor() as opened:
        opened.execute(statement)
    assert snapshot() == before


def test_two_nodes_cannot_be_kept_for_one_run(world: World, node: Node) -> None:
    other = world.node("n2")
    run_id = world.submit()
    Node.objects.filter(pk=node.pk).update(reserved_for=run_id)
    with pytest.raises(IntegrityError, match="reserved_for"), transaction.atomic():
        Node.objects.filter(pk=other.pk).update(reserved_for=run_id)
