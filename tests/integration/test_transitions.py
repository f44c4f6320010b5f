"""The state machine against a real database: every edge, every illegal one, the fences, the node's books.

"Changes nothing" is meant literally: every row of every table that a transition could touch is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from tests.integration.engine_rows import World, assert_books_balance, cursor, row, snapshot
from workers import claiming, transitions
from workers.leases import Lease, Outcome
from workers.models import Attempt, Node, Run, RunEvent
from workers.states import EDGES, Reason, State

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(world: World) -> Node:
    return world.node()


def events(run_id: int) -> list[tuple[str, str, str, int, str]]:
    rows = RunEvent.objects.filter(run_id=run_id).order_by("id")
    return [(item.from_state, item.to_state, item.reason, item.attempt, item.by) for item in rows]


# --- every function in every state ------------------------------------------------------------------------

#: Bring a run into a state; each has a lease that was good once and has waited beyond its limit.
STATES: dict[State, Callable[[World, Node], Lease]] = {
    State.PENDING: lambda world, node: Lease(world.submit(retries=1), 0, 0),
    State.RUNNING: lambda world, node: world.claimed(node, retries=1),
    State.SUCCEEDED: lambda world, node: _ended(world, node, State.SUCCEEDED),
    State.FAILED: lambda world, node: _ended(world, node, State.FAILED),
    State.CANCELLED: lambda world, node: _ended(world, node, State.CANCELLED),
}

#: Each edge's function on one run; true when it moved.
MOVES: dict[str, Callable[[World, Node, Lease], object]] = {
    "claim": lambda world, node, lease: world.claim(node, lease.run_id),
    "adopt": lambda world, node, lease: world.adopt(node, lease.run_id),
    "release": lambda world, node, lease: world.release(lease),
    "retry": lambda world, node, lease: world.retry(lease),
    "finish": lambda world, node, lease: world.finish(lease),
    "cancel": lambda world, node, lease: world.cancel(lease.run_id),
    "expire": lambda world, node, lease: world.expire(),
    "reject": lambda world, node, lease: world.reject(lease.run_id),
}


def _ended(world: World, node: Node, state: State) -> Lease:
    lease = world.claimed(node, retries=1)
    world.finish(lease, state)
    return lease


def test_every_edge_is_tried() -> None:
    """Catches: an edge that was added without a test of its illegal uses."""
    assert {edge.name for edge in EDGES} - {"submit"} == set(MOVES)
    assert set(STATES) == set(State)


@pytest.mark.parametrize(("name", "state"), list(product(MOVES, STATES)))
def test_a_function_moves_a_run_from_its_own_state_only(
    world: World, node: Node, name: str, state: State
) -> None:
    """Catches: a missing ``state = ...`` in any statement: a final run that comes back to life, say."""
    lease = STATES[state](world, node)
    Run.objects.update(expires_at=timezone.now() - timedelta(days=1))
    bystander = world.claimed(node)
    before = snapshot()
    moved = MOVES[name](world, node, lease)
    targets = {edge.target for edge in EDGES if edge.name == name and edge.source is state}
    if targets:
        assert moved
        assert row(lease.run_id).state in targets
    else:
        assert not moved
        assert snapshot() == before
    assert row(bystander.run_id).state == State.RUNNING
    assert_books_balance()


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED])
def test_a_running_run_finishes_in_each_final_state(world: World, node: Node, state: State) -> None:
    lease = world.claimed(node)
    assert world.finish(lease, state) == {lease.run_id}
    ended = row(lease.run_id)
    assert ended.state == state
    assert ended.finished_at is not None
    assert ended.lease_until is None
    assert_books_balance()


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
def test_finish_cannot_leave_a_run_open(world: World, node: Node, state: State) -> None:
    """Catches: an outcome with a state that is no end; the schema refuses it and nothing is changed."""
    lease = world.claimed(node)
    before = snapshot()
    with pytest.raises(IntegrityError):
        world.finish(lease, state)
    assert snapshot() == before


# --- what each edge writes --------------------------------------------------------------------------------


def test_submit(world: World) -> None:
    """Catches: a wrong order key, a limit that is not kept, an event for what is no change."""
    with cursor() as opened:
        opened.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, now()")
        clock, now = opened.fetchone()
    normal, high, low = (
        world.submit(priority=priority, retries=2, expires_in_s=60) for priority in (5, 1, 9)
    )
    found = row(normal)
    assert (found.state, found.reason, found.attempt, found.lease_epoch, found.retries_left) == (
        State.PENDING, "", 0, 0, 2,
    )  # fmt: skip
    assert found.expires_at == now + timedelta(seconds=60)
    assert found.node is None
    assert 0 <= found.rank - clock < 60_000_000
    aging_us = settings.GANTRY_AGING_S * 1_000_000
    assert aging_us - 60_000_000 < found.rank - row(high).rank < aging_us
    assert aging_us < row(low).rank - found.rank < aging_us + 60_000_000
    assert events(normal) == []
    assert not Attempt.objects.exists()


def test_claim(world: World, node: Node) -> None:
    first, second = world.submit(name="a", timeout_s=9, grace_s=3, retries=1), world.submit(name="b")
    claimed = world.claim(node, second, first)
    assert [item.lease for item in claimed] == [Lease(second, 1, 1), Lease(first, 1, 1)]
    facts = claimed[1]
    assert (facts.tenant, facts.family, facts.kind, facts.name) == ("default", "tasks", "process", "a")
    assert (facts.cpu_m, facts.mem_mb, facts.timeout_s, facts.grace_s, facts.retries_left) == (
        1000,
        100,
        9,
        3,
        1,
    )
    assert facts.spec["argv"] == ["true"]
    assert (facts.adopted, facts.started_ago, facts.cancel_requested, facts.never_lost) == (
        False,
        None,
        False,
        False,
    )
    found = row(first)
    assert (found.state, found.node_id, found.attempt, found.lease_epoch) == (State.RUNNING, node.pk, 1, 1)
    assert found.lease_until is not None
    assert found.lease_until > timezone.now() + timedelta(seconds=settings.GANTRY_LEASE_S - 5)
    attempt = Attempt.objects.get(run_id=first)
    assert (attempt.number, attempt.node_id, attempt.state, attempt.finished_at) == (
        1,
        node.pk,
        State.RUNNING,
        None,
    )
    assert events(first) == [("PENDING", "RUNNING", "", 1, "n1")]
    node.refresh_from_db()
    assert (node.cpu_m_used, node.mem_mb_used, node.slots_used) == (2000, 200, 2)


def test_adopt_grows_the_epoch_and_nothing_else(world: World, node: Node) -> None:
    """Catches: an adoption that counts as a new attempt, or takes what runs elsewhere."""
    other = world.node("n2")
    mine, theirs, also_mine = world.claimed(node), world.claimed(other), world.claimed(node)
    world.started(mine, ago=100.0)
    adopted = world.adopt(node, crashed=True)
    assert [item.lease for item in adopted] == [Lease(mine.run_id, 1, 2), Lease(also_mine.run_id, 1, 2)]
    assert [item.adopted for item in adopted] == [True, True]
    assert [item.crashes for item in adopted] == [1, 1]
    assert adopted[0].started_ago == pytest.approx(100.0, abs=5)
    assert adopted[1].started_ago is None
    assert row(theirs.run_id).lease_epoch == 1
    assert len(events(mine.run_id)) == 1
    assert Attempt.objects.count() == 3
    assert_books_balance()
    assert [item.crashes for item in world.adopt(node, mine.run_id)] == [1]
    with cursor() as opened:
        transitions.clear_suspicion(opened, node.pk)
    assert [item.crashes for item in world.adopt(node)] == [0, 0]


def test_finish(world: World, node: Node) -> None:
    lease = world.claimed(node)
    world.started(lease, ago=5.0)
    started_at = row(lease.run_id).started_at
    world.finish(
        lease,
        State.FAILED,
        reason=Reason.EXIT_CODE,
        message="Command exited\0 with status 3",
        exit_code=3,
        started_ago=99.0,
        log_bytes=1234,
        log_truncated=True,
    )
    found = row(lease.run_id)
    assert (found.state, found.reason, found.message, found.exit_code) == (
        State.FAILED, Reason.EXIT_CODE, "Command exited with status 3", 3,
    )  # fmt: skip
    assert found.started_at == started_at
    assert found.node_id == node.pk
    attempt = Attempt.objects.get(run_id=lease.run_id)
    assert (attempt.state, attempt.reason, attempt.message, attempt.exit_code, attempt.log_bytes) == (
        State.FAILED, Reason.EXIT_CODE, "Command exited with status 3", 3, 1234,
    )  # fmt: skip
    assert attempt.log_truncated
    assert attempt.finished_at is not None
    assert attempt.started_at == started_at
    assert events(lease.run_id)[-1] == ("RUNNING", "FAILED", "exit_code", 1, "n1")
    node.refresh_from_db()
    assert (node.cpu_m_used, node.mem_mb_used, node.slots_used) == (0, 0, 0)


def test_finish_of_what_was_never_reported_as_started(world: World, node: Node) -> None:
    """A brief command is written once, with its start; one that never started has none."""
    brief, never = world.claimed(node), world.claimed(node)
    world.finish(brief, started_ago=0.02)
    world.finish(never, State.CANCELLED)
    assert row(brief.run_id).started_at is not None
    assert Attempt.objects.get(run_id=brief.run_id).started_at == row(brief.run_id).started_at
    assert row(never.run_id).started_at is None
    assert Attempt.objects.get(run_id=never.run_id).started_at is None


def test_retry(world: World, node: Node) -> None:
    """Catches: a try that is not counted, resources that are kept, a run that could be claimed too early."""
    lease = world.claimed(node, retries=2, expires_in_s=10)
    world.started(lease)
    world.retry(lease, message="Command exited with status 7", exit_code=7, log_bytes=5)
    found = row(lease.run_id)
    assert (found.state, found.reason, found.message) == (
        State.PENDING, Reason.EXIT_CODE, "Command exited with status 7",
    )  # fmt: skip
    assert (found.retries_left, found.attempt, found.node_id, found.exit_code) == (1, 1, None, None)
    assert (found.started_at, found.lease_until, found.finished_at) == (None, None, None)
    assert found.not_before is not None
    assert found.not_before > timezone.now() + timedelta(seconds=20)
    assert found.expires_at is not None
    assert found.expires_at > found.not_before + timedelta(seconds=settings.GANTRY_EXPIRE_S - 5)
    attempt = Attempt.objects.get(run_id=lease.run_id)
    assert (attempt.state, attempt.exit_code, attempt.log_bytes) == (State.FAILED, 7, 5)
    assert attempt.finished_at is not None
    assert events(lease.run_id)[-1] == ("RUNNING", "PENDING", "exit_code", 1, "n1")
    assert_books_balance()
    assert world.claim(node, lease.run_id) == []
    assert claiming.promote() == 0
    Run.objects.update(not_before=timezone.now() - timedelta(seconds=1))
    assert claiming.promote() == 1
    (again,) = world.claim(node, lease.run_id)
    assert (again.lease, again.retries_left) == (Lease(lease.run_id, 2, 2), 1)
    assert Attempt.objects.filter(run_id=lease.run_id).count() == 2


def test_retry_without_a_try_left_changes_nothing(world: World, node: Node) -> None:
    lease = world.claimed(node, retries=0)
    before = snapshot()
    assert world.retry(lease) == set()
    assert snapshot() == before


def test_release_uses_up_no_try(world: World, node: Node) -> None:
    at_once, later = world.claimed(node, retries=1), world.claimed(node, retries=1)
    world.release(at_once, message="the worker stopped before it was started")
    world.release(later, backoff_s=5.0)
    for lease in (at_once, later):
        found = row(lease.run_id)
        assert (found.state, found.reason, found.retries_left, found.node_id) == (
            State.PENDING,
            "dropped",
            1,
            None,
        )
        assert Attempt.objects.get(run_id=lease.run_id).state == State.FAILED
        assert events(lease.run_id)[-1] == ("RUNNING", "PENDING", "dropped", 1, "n1")
    assert row(at_once.run_id).not_before is None
    assert row(later.run_id).not_before is not None
    assert_books_balance()
    (again,) = world.claim(node, at_once.run_id, later.run_id)
    assert again.lease == Lease(at_once.run_id, 2, 2)


@pytest.mark.parametrize("operator", [False, True])
def test_cancel(world: World, operator: bool) -> None:
    run_id = world.submit()
    assert world.cancel(run_id, operator=operator) == {run_id}
    found = row(run_id)
    assert (found.state, found.reason) == (State.CANCELLED, "operator" if operator else "")
    assert found.message == (
        "Cancelled by an operator before it started" if operator else "Cancelled before it started"
    )
    assert events(run_id) == [("PENDING", "CANCELLED", found.reason, 0, "client")]


def test_what_waits_for_its_next_try_can_be_cancelled_and_expires(world: World, node: Node) -> None:
    """Catches: a statement that finds only what is claimable now."""
    leases = [world.claimed(node, retries=1) for _ in range(3)]
    for lease in leases:
        world.retry(lease)
    assert world.cancel(leases[0].run_id) == {leases[0].run_id}
    assert world.reject(leases[1].run_id) == {leases[1].run_id}
    Run.objects.filter(pk=leases[2].run_id).update(expires_at=timezone.now() - timedelta(days=1))
    assert world.expire() == {leases[2].run_id}
    assert not Run.objects.filter(not_before__isnull=False).exists()
    assert [row(lease.run_id).state for lease in leases] == [State.CANCELLED, State.FAILED, State.FAILED]


def test_expire_and_reject(world: World) -> None:
    young, old, refused = world.submit(), world.submit(), world.submit()
    Run.objects.filter(pk=old).update(expires_at=timezone.now() - timedelta(days=1))
    assert world.expire() == {old}
    assert world.reject(refused) == {refused}
    assert row(young).state == State.PENDING
    assert (row(old).state, row(old).reason) == (State.FAILED, Reason.EXPIRED)
    assert row(old).message == "Waited longer than its limit and was not started"
    assert (row(refused).reason, row(refused).message) == (
        Reason.REJECTED,
        "commands are not allowed any more",
    )
    assert events(old) == [("PENDING", "FAILED", "expired", 0, "reconciler")]
    assert events(refused) == [("PENDING", "FAILED", "rejected", 0, "n1")]


def test_expire_takes_no_more_than_its_limit(world: World) -> None:
    """Catches: a reconciler that locks every waiting run of a large backlog in one transaction."""
    run_ids = [world.submit() for _ in range(5)]
    Run.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert world.expire(2) == set(run_ids[:2])
    assert world.expire(10) == set(run_ids[2:])


# --- cancel requests --------------------------------------------------------------------------------------


def test_a_cancel_request_keeps_a_run_from_going_back(world: World, node: Node) -> None:
    """Catches: a cancelled run that is retried or released, and so runs after all (I5)."""
    lease = world.claimed(node, retries=3)
    assert world.request_cancel(lease.run_id) == {lease.run_id}
    before = snapshot()
    assert world.retry(lease) == set()
    assert world.release(lease) == set()
    assert snapshot() == before
    assert world.finish(lease, State.CANCELLED) == {lease.run_id}


def test_a_repeated_cancel_request_keeps_the_first_time_and_the_operators_name(
    world: World, node: Node
) -> None:
    lease = world.claimed(node)
    world.request_cancel(lease.run_id, operator=True)
    first = row(lease.run_id).cancel_requested_at
    Run.objects.update(cancel_requested_at=timezone.now() - timedelta(minutes=1))
    world.request_cancel(lease.run_id)
    found = row(lease.run_id)
    assert found.cancel_requested_at is not None
    assert first is not None
    assert found.cancel_requested_at < first
    assert found.cancelled_by_operator
    (adopted,) = world.adopt(node)
    assert (adopted.cancel_requested, adopted.operator_cancel) == (True, True)


def test_what_is_to_be_cancelled_may_not_start(world: World, node: Node) -> None:
    """Catches: a start after a cancel that was accepted (I5), and a look that writes."""
    wanted, unwanted, removed = (world.claimed(node) for _ in range(3))
    world.request_cancel(unwanted.run_id)
    world.request_cancel(removed.run_id, operator=True)
    before = snapshot()
    with cursor() as opened:
        answers = transitions.may_start(opened, [wanted, unwanted, removed])
    assert answers == {wanted: None, unwanted: False, removed: True}
    assert snapshot() == before
    (again,) = world.adopt(node, unwanted.run_id)
    with cursor() as opened:
        assert transitions.may_start(opened, [unwanted, again.lease]) == {again.lease: False}


@pytest.mark.parametrize("state", [state for state in State if state is not State.RUNNING])
def test_a_cancel_request_is_for_running_runs_only(world: World, node: Node, state: State) -> None:
    lease = STATES[state](world, node)
    before = snapshot()
    assert world.request_cancel(lease.run_id) == set()
    assert snapshot() == before


# --- fences -----------------------------------------------------------------------------------------------

#: What a worker writes under a lease; true when it was accepted.
FENCED: dict[str, Callable[[World, Lease], set[int]]] = {
    "renew": lambda world, lease: world.renew(lease),
    "held": lambda world, lease: world.held(lease),
    "may_start": lambda world, lease: world.may_start(lease),
    "started": lambda world, lease: world.started(lease),
    "finish": lambda world, lease: world.finish(lease),
    "retry": lambda world, lease: world.retry(lease),
    "release": lambda world, lease: world.release(lease),
}
#: (change of attempt, change of epoch) of a lease that is not the run's.
STALE = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1)]


@pytest.mark.parametrize(("name", "stale"), list(product(FENCED, STALE)))
def test_a_stale_lease_writes_nothing(world: World, node: Node, name: str, stale: tuple[int, int]) -> None:
    """Catches: a worker that was frozen, replaced or is of another attempt and still writes."""
    lease = world.claimed(node, retries=5)
    world.retry(lease)
    Run.objects.update(not_before=None)
    (claimed,) = world.claim(node, lease.run_id)
    world.adopt(node)
    good = Lease(claimed.lease.run_id, claimed.lease.attempt, claimed.lease.epoch + 1)
    before = snapshot()
    assert FENCED[name](world, Lease(good.run_id, good.attempt + stale[0], good.epoch + stale[1])) == set()
    assert snapshot() == before
    assert FENCED[name](world, good) == {good.run_id}


@pytest.mark.parametrize(
    ("name", "state"), list(product(FENCED, [s for s in State if s is not State.RUNNING]))
)
def test_a_lease_is_worth_nothing_when_the_run_is_not_running(
    world: World, node: Node, name: str, state: State
) -> None:
    """Catches: a second end, or a renewal of what has ended."""
    lease = STATES[state](world, node)
    before = snapshot()
    assert FENCED[name](world, lease) == set()
    assert snapshot() == before


def test_an_unknown_run_is_nobodys(world: World, node: Node) -> None:
    before = snapshot()
    for name, write in FENCED.items():
        assert write(world, Lease(2**62, 1, 1)) == set(), name
    assert world.claim(node, 2**62) == []
    assert world.adopt(node, 2**62) == []
    assert world.cancel(2**62) == world.reject(2**62) == world.request_cancel(2**62) == set()
    assert snapshot() == before


def test_renew_extends_and_started_keeps_the_first_time(world: World, node: Node) -> None:
    lease = world.claimed(node)
    Run.objects.update(lease_until=timezone.now() - timedelta(seconds=5))
    world.renew(lease)
    until = row(lease.run_id).lease_until
    assert until is not None
    assert until > timezone.now()
    world.started(lease, ago=10.0, message="Command is running")
    first = row(lease.run_id).started_at
    world.started(lease, ago=1.0, message="Command is running still")
    found = row(lease.run_id)
    assert (found.started_at, found.message) == (first, "Command is running still")
    assert Attempt.objects.get(run_id=lease.run_id).started_at == first


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
        assert transitions.renew(opened, []) == transitions.held(opened, []) == set()
        assert transitions.may_start(opened, []) == {}
        assert transitions.started(opened, []) == transitions.finish(opened, [], by="n1") == set()
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
