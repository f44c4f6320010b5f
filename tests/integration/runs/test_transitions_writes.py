"""What each edge of the state machine writes: the run, its attempt, its event and the node's books."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from tests.integration.engine_rows import World, assert_books_balance, cursor, events, row, snapshot
from workers.models import Attempt, Node, Run
from workers.runs import running
from workers.scheduling import claiming
from workers.vocabulary.leases import Lease
from workers.vocabulary.states import Reason, State

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]


def begun() -> datetime:
    """The database's time at the beginning of this test's one transaction: no time passes in it."""
    with cursor() as opened:
        opened.execute("SELECT now()")
        found: datetime = opened.fetchone()[0]
        return found


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
    assert found.lease_until >= begun() + timedelta(seconds=settings.GANTRY_LEASE_S)
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
    assert adopted[0].started_ago == pytest.approx(100.0, abs=50)
    assert adopted[1].started_ago is None
    assert row(theirs.run_id).lease_epoch == 1
    assert len(events(mine.run_id)) == 1
    assert Attempt.objects.count() == 3
    assert_books_balance()
    assert [item.crashes for item in world.adopt(node, mine.run_id)] == [1]
    with cursor() as opened:
        running.clear_suspicion(opened, node.pk)
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
    assert found.not_before >= begun() + timedelta(seconds=30)
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
