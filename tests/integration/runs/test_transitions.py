"""The state machine against a real database: every edge, every illegal one, cancel requests, the fences.

"Changes nothing" is meant literally: every row of every table that a transition could touch is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest
from django.db import IntegrityError
from django.utils import timezone

from tests.integration.engine_rows import World, assert_books_balance, cursor, row, snapshot
from workers.models import Attempt, Node, Run
from workers.runs import running
from workers.runs.retries import may_retry
from workers.vocabulary.leases import Lease
from workers.vocabulary.states import EDGES, Reason, State

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]


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
        answers = running.may_start(opened, [wanted, unwanted, removed])
    assert answers == {wanted: None, unwanted: False, removed: True}
    assert snapshot() == before
    (again,) = world.adopt(node, unwanted.run_id)
    with cursor() as opened:
        assert running.may_start(opened, [unwanted, again.lease]) == {again.lease: False}


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


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        (Reason.EXIT_CODE, False),
        (Reason.OUTPUT, False),
        (Reason.TIMEOUT, False),
        (Reason.UNREACHABLE, True),
        (Reason.LOST, True),
        (Reason.RUNTIME, True),
    ],
)
def test_for_losses_only(world: World, node: Node, reason: Reason, again: bool) -> None:
    """Catches work that fails by itself and is done twice, and work that is lost with its node."""
    lease = world.claimed(node, retries=1, losses_only=True)

    assert world.retry(lease, reason=reason) == ({lease.run_id} if again else set())
    assert row(lease.run_id).state == (State.PENDING if again else State.RUNNING)
    assert may_retry(reason, losses_only=True) == again
