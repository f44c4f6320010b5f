"""Transitions that meet: several nodes at the same runs, cancels racing claims, one worker's own threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.integration.engine_rows import World, assert_books_balance, cursor, row, together
from tests.support.seeds import dice
from tests.support.waiting import limit, wait_until
from workers import services
from workers.models import Attempt, Node, Run, RunEvent
from workers.node.scribe import Entry, Scribe
from workers.runs import running, transitions
from workers.scheduling import claiming
from workers.vocabulary.leases import ClaimedRun, Lease, Outcome
from workers.vocabulary.states import State

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.invariant]


def claim_as_an_agent_does(node: Node, run_ids: list[int]) -> list[ClaimedRun]:
    """Lock the node's row first, then take the runs."""
    with cursor() as opened:
        opened.execute("SELECT 1 FROM workers_node WHERE id = %s FOR UPDATE", [node.pk])
        return transitions.claim(opened, node.pk, node.name, run_ids)


def waits_for_a_lock() -> bool:
    """Does any other session of this database wait for a lock now?"""
    with connection.cursor() as opened:
        opened.execute(
            """SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'"""
        )
        return bool(opened.fetchone()[0])


def test_nodes_that_claim_the_same_runs_share_them(world: World) -> None:
    """Catches: a run that two nodes execute. Ten rounds, three nodes, the same ids in different orders."""
    nodes = [world.node(f"n{number}") for number in range(3)]
    for turn in range(10):
        run_ids = [world.submit() for _ in range(8)]

        def claimer(node: Node, order: list[int]) -> Callable[[], list[ClaimedRun]]:
            return lambda: claim_as_an_agent_does(node, order)

        orders = [dice(f"orders {turn} {number}").sample(run_ids, len(run_ids)) for number in range(3)]
        found = together(*(claimer(node, order) for node, order in zip(nodes, orders, strict=True)))
        taken = [item.lease.run_id for part in found for item in part]
        assert sorted(taken) == run_ids
        for node, part in zip(nodes, found, strict=True):
            assert {row(item.lease.run_id).node_id for item in part} <= {node.pk}
        assert_books_balance()
        assert Attempt.objects.filter(run_id__in=run_ids).count() == len(run_ids)
        assert RunEvent.objects.filter(run_id__in=run_ids).count() == len(run_ids)
        for part in found:
            for item in part:
                world.finish(item.lease)


def test_nodes_that_look_at_the_same_queue_share_it(world: World) -> None:
    """The same through ``claiming.look``: everything is taken once, and no node takes more than it has."""
    nodes = [world.node(f"n{number}", cpu_m=6000) for number in range(3)]
    run_ids = [world.submit() for _ in range(40)]

    def look_until_empty(node: Node) -> Callable[[], list[Lease]]:
        def work() -> list[Lease]:
            memory = claiming.Memory()
            done: list[Lease] = []
            while True:
                found = claiming.look(node.pk, 1, memory, 4).claimed
                assert_books_balance()
                if not found:
                    if not Run.objects.filter(state=State.PENDING).exists():
                        return done
                    continue
                done += [item.lease for item in found]
                with cursor() as opened:
                    outcomes = [Outcome(item.lease, State.SUCCEEDED) for item in found]
                    transitions.finish(opened, outcomes, by=node.name)

        return work

    found = together(*(look_until_empty(node) for node in nodes))
    assert sorted(lease.run_id for part in found for lease in part) == run_ids
    assert Run.objects.filter(state=State.SUCCEEDED, attempt=1).count() == 40
    assert_books_balance()


def test_a_cancel_that_meets_a_claim_waits_for_it_and_becomes_a_request(world: World) -> None:
    """The claim came first and is not yet committed: the cancel is not lost, and not refused."""
    node, run_id = world.node(), world.submit()
    claimed, commit = threading.Event(), threading.Event()

    def claim() -> None:
        with transaction.atomic():
            assert claim_as_an_agent_does(node, [run_id])
            claimed.set()
            assert commit.wait(limit(60))

    def cancel() -> services.Cancellation:
        assert claimed.wait(limit(60))
        return services.cancel(world.tenant.pk, run_id)

    def referee() -> None:
        assert claimed.wait(limit(60))
        try:
            wait_until(waits_for_a_lock, why="the cancel waits for the claim")
        finally:
            commit.set()

    _, done, _ = together(claim, cancel, referee)
    assert isinstance(done, services.Cancellation)
    assert (done.accepted, done.state) == (True, State.RUNNING)
    assert row(run_id).cancel_requested_at is not None


def test_a_claim_that_meets_a_cancel_passes_by(world: World) -> None:
    """The cancel came first and is not yet committed: the node does not wait, it takes the next run."""
    node, cancelled, next_one = world.node(), world.submit(), world.submit()
    with transaction.atomic():
        services.cancel(world.tenant.pk, cancelled)
        ((taken, *more),) = together(lambda: claim_as_an_agent_does(node, [cancelled, next_one]))
        assert (taken.lease.run_id, more) == (next_one, [])
    assert row(cancelled).state == State.CANCELLED
    assert claim_as_an_agent_does(node, [cancelled]) == []


def test_cancels_racing_claims(world: World) -> None:
    """Catches: a confirmed cancel after which the run starts without knowing of it (I5).

    Each cancel is accepted; the run then is either cancelled and was never claimed, or its node knows.
    """
    node = world.node(cpu_m=100_000, mem_mb=100_000)
    run_ids = [world.submit() for _ in range(60)]

    def claim_one_by_one() -> None:
        for run_id in run_ids:
            claim_as_an_agent_does(node, [run_id])

    def cancel_one_by_one() -> list[services.Cancellation]:
        return [services.cancel(world.tenant.pk, run_id) for run_id in run_ids]

    _, answers = together(claim_one_by_one, cancel_one_by_one)
    assert answers is not None
    for run_id, answer in zip(run_ids, answers, strict=True):
        assert answer.accepted
        found = row(run_id)
        if found.state == State.CANCELLED:
            assert (found.attempt, found.node_id) == (0, None)
        else:
            assert (found.state, found.cancel_requested_at is not None) == (State.RUNNING, True)
    assert_books_balance()


def test_cancels_racing_the_end_and_the_retry(world: World) -> None:
    """Catches: a cancel that falls between an attempt's end and the next try, so that the run goes on."""
    node = world.node(cpu_m=100_000, mem_mb=100_000)
    failing = [world.claimed(node, retries=1) for _ in range(30)]
    ending = [world.claimed(node) for _ in range(30)]
    leases = [lease for pair in zip(failing, ending, strict=True) for lease in pair]

    def end() -> None:
        for lease in leases:
            if lease in ending:
                world.finish(lease)
            elif not world.retry(lease, backoff_s=0.0):
                world.finish(lease, State.CANCELLED)

    def cancel() -> list[services.Cancellation]:
        return [services.cancel(world.tenant.pk, lease.run_id) for lease in leases]

    _, answers = together(end, cancel)
    assert answers is not None
    for lease, answer in zip(leases, answers, strict=True):
        found = row(lease.run_id)
        if lease in ending:
            assert found.state == State.SUCCEEDED
            assert answer.already_final == (found.cancel_requested_at is None)
        else:
            assert (found.state, answer.accepted) == (State.CANCELLED, True)
        told = list(
            RunEvent.objects.filter(run_id=lease.run_id).order_by("id").values_list("to_state", flat=True)
        )
        assert told[0] == State.RUNNING
        assert told[1:] in ([found.state], [State.PENDING, State.CANCELLED])
    assert_books_balance()


def test_only_one_of_two_workers_of_a_run_ends_it(world: World) -> None:
    """An adoption races the old worker's end: one of them wins, and the run ends once."""
    node = world.node(cpu_m=100_000, mem_mb=100_000)
    for _ in range(20):
        lease = world.claimed(node)

        def adopt_and_end(lease: Lease = lease) -> bool:
            return any(world.finish(item.lease, State.FAILED) for item in world.adopt(node, lease.run_id))

        def end(lease: Lease = lease) -> bool:
            return bool(world.finish(lease))

        old, new = together(end, adopt_and_end)
        assert [old, new].count(True) == 1
        assert row(lease.run_id).state == (State.SUCCEEDED if old else State.FAILED)
        assert RunEvent.objects.filter(run_id=lease.run_id).count() == 2
        assert_books_balance()


def test_expiry_racing_claims(world: World) -> None:
    """Catches: a run that expires while it runs."""
    node = world.node(cpu_m=100_000, mem_mb=100_000)
    run_ids = [world.submit() for _ in range(40)]
    Run.objects.update(expires_at=timezone.now())

    def claim() -> None:
        for run_id in run_ids:
            claim_as_an_agent_does(node, [run_id])

    def expire() -> None:
        for _ in run_ids:
            world.expire(1)

    together(claim, expire)
    for run_id in run_ids:
        found = row(run_id)
        assert (found.state, found.attempt) in {(State.RUNNING, 1), (State.FAILED, 0)}
    assert_books_balance()


@pytest.fixture
def scribe() -> Scribe:
    return Scribe("n1", lambda: None)


def test_a_group_of_a_workers_writer_takes_its_locks_in_order(world: World, scribe: Scribe) -> None:
    """Catches: a deadlock between the scribe and a renewal of the same runs.

    A group holds the start of the last run, the retry of the second and the end of the first. While somebody
    else holds the first one, the group must hold none of the others.
    """
    node = world.node()
    first, second, third = (world.claimed(node, retries=1) for _ in range(3))
    locked = threading.Event()

    def renew() -> None:
        with cursor() as opened:
            transitions.lock(opened, [first.run_id])
            locked.set()
            wait_until(waits_for_a_lock, why="the group waits for the first run")
            opened.execute(
                "SELECT 1 FROM workers_run WHERE id = ANY(%s) FOR UPDATE NOWAIT",
                [[second.run_id, third.run_id]],
            )

    def write() -> None:
        assert locked.wait(limit(60))
        scribe._write(
            [
                Entry("started", third, since=time.monotonic()),
                Entry("retry", second, Outcome(second, State.FAILED)),
                Entry("finish", first, Outcome(first, State.SUCCEEDED)),
            ]
        )

    together(renew, write)
    assert [row(lease.run_id).state for lease in (first, second, third)] == [
        "SUCCEEDED",
        "PENDING",
        "RUNNING",
    ]
    assert_books_balance()


def test_starts_are_asked_for_in_one_look_and_before_anything_is_written(
    world: World, scribe: Scribe
) -> None:
    """Catches: a question for each start, and an answer that grows old while a group is written."""
    node = world.node()
    ending, *starting = (world.claimed(node) for _ in range(4))
    world.request_cancel(starting[2].run_id, operator=True)
    taken = Lease(ending.run_id, ending.attempt, ending.epoch - 1)
    questions = [Entry("may_start", lease) for lease in (*starting, taken)]
    finish = Entry("finish", ending, Outcome(ending, State.SUCCEEDED))
    with CaptureQueriesContext(connection) as asked:
        assert scribe._answer([questions[0], finish, *questions[1:]]) == [finish]
    assert len(asked) == 1
    assert [item.done.result(0) for item in questions] == [True, True, True, False]
    assert [item.cancel for item in questions] == ["", "", "operator", ""]


def test_a_cancel_that_is_accepted_is_seen_by_every_later_look(world: World) -> None:
    """Catches: a look that is taken from the time before a cancel's commit, and one that waits for it."""
    lease = world.claimed(world.node())
    requested, looked = threading.Event(), threading.Event()

    def cancel() -> None:
        with cursor() as opened:
            transitions.request_cancel(opened, [lease.run_id], operator=False)
            requested.set()
            assert looked.wait(limit(60)), "the look waits for a cancel that is not yet accepted"

    def look() -> None:
        assert requested.wait(limit(60))
        assert world.may_start(lease) == {lease.run_id}, "nobody was told yet that it is accepted"
        looked.set()

    together(cancel, look)
    with cursor() as opened:
        assert running.may_start(opened, [lease]) == {lease: False}
        opened.execute("SELECT pg_current_xact_id_if_assigned()")
        assert opened.fetchone() == (None,), "a look costs a commit"


def test_a_workers_threads_do_not_deadlock(world: World, scribe: Scribe) -> None:
    """The same in a storm: groups, renewals and claims of one worker at once."""
    node = world.node(cpu_m=100_000_000, mem_mb=100_000_000)
    stop = threading.Event()
    leases: list[Lease] = []

    def renew() -> None:
        while not stop.is_set():
            world.renew(*leases)

    def claim() -> None:
        while not stop.is_set():
            claim_as_an_agent_does(node, [world.submit()])

    def write() -> None:
        try:
            for _ in range(40):
                first, second, third = (world.claimed(node, retries=1) for _ in range(3))
                leases[:] = [first, second, third]
                scribe._write(
                    [
                        Entry("started", third, since=time.monotonic()),
                        Entry("retry", second, Outcome(second, State.FAILED)),
                        Entry("finish", first, Outcome(first, State.SUCCEEDED)),
                    ]
                )
                world.finish(third)
        finally:
            stop.set()

    try:
        together(renew, claim, write)
    except OperationalError as error:
        pytest.fail(f"two writers of one worker waited for each other: {error}")
    assert_books_balance()
