"""The state machine under any order of calls, found by hypothesis and compared with a model of a few lines.

The model knows states, attempts, tries and leases; after each step the database must say the same, and the
invariants must hold: books that balance, attempts that are open exactly while their run is running, events
that follow each other, nothing that leaves a final state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.integration.engine_rows import World, assert_books_balance, cursor
from workers.models import Attempt, Node, Run, RunEvent
from workers.runs import transitions
from workers.scheduling import claiming
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import FINAL, LEGAL, Reason, State

pytestmark = [pytest.mark.django_db, pytest.mark.invariant]


@dataclass
class Model:
    """What a run should be."""

    state: State = State.PENDING
    attempt: int = 0
    epoch: int = 0
    tries: int = 0
    node: str | None = None
    backing_off: bool = False
    cancel: bool = False


ENDS = st.sampled_from([State.SUCCEEDED, State.FAILED, State.CANCELLED])
#: Mostly the right lease, sometimes one of another attempt or epoch.
STALE = st.sampled_from([(0, 0)] * 6 + [(1, 0), (-1, 0), (0, 1), (0, -1)])
WHICH = st.integers(0, 63)


class Machine(RuleBasedStateMachine):
    """Every rule picks runs by number, calls one transition and says what the model expects of it."""

    def __init__(self) -> None:
        super().__init__()
        with connection.cursor() as opened:
            for table in ("workers_runevent", "workers_attempt", "workers_run", "workers_node"):
                opened.execute(f"DELETE FROM {table}")
        self.world = World(cpu_m=1000, mem_mb=100)
        self.large = self.world.add_shape(self.world.tenant, cpu_m=3000, mem_mb=500)
        self.runs: dict[int, Model] = {}
        self.nodes: dict[str, Node] = {}

    @initialize()
    def two_nodes(self) -> None:
        self.nodes = {name: self.world.node(name, cpu_m=6000, mem_mb=2000) for name in ("n1", "n2")}

    def pick(self, which: int, states: set[State] | None = None) -> int | None:
        """The run of that number, among those of the given states if there is any."""
        ids = [run_id for run_id, model in self.runs.items() if states is None or model.state in states]
        ids = ids or list(self.runs)
        return ids[which % len(ids)] if ids else None

    def lease(self, run_id: int, stale: tuple[int, int]) -> tuple[Lease, bool]:
        """A lease, and whether it is the run's own."""
        model = self.runs[run_id]
        lease = Lease(run_id, model.attempt + stale[0], model.epoch + stale[1])
        return lease, stale == (0, 0) and model.state is State.RUNNING

    # --- moves ---

    @rule(large=st.booleans(), tries=st.integers(0, 2), priority=st.integers(0, 9))
    def submit(self, large: bool, tries: int, priority: int) -> None:
        shape = self.large if large else self.world.shape
        run_id = self.world.submit(shape=shape, retries=tries, priority=priority)
        self.runs[run_id] = Model(tries=tries)

    @rule(name=st.sampled_from(["n1", "n2"]), whiches=st.lists(WHICH, max_size=4))
    def claim(self, name: str, whiches: list[int]) -> None:
        wanted = {run_id for which in whiches if (run_id := self.pick(which, {State.PENDING})) is not None}
        node = Node.objects.get(name=name)
        cpu, mem, chosen = node.cpu_m_total - node.cpu_m_used, node.mem_mb_total - node.mem_mb_used, []
        for run_id in sorted(wanted):  # the caller's duty: only what fits
            shape = Run.objects.select_related("shape").get(pk=run_id).shape
            if shape.cpu_m <= cpu and shape.mem_mb <= mem:
                chosen.append(run_id)
                cpu, mem = cpu - shape.cpu_m, mem - shape.mem_mb
        taken = [item.lease for item in self.world.claim(self.nodes[name], *chosen)]
        expected = []
        for run_id in chosen:
            model = self.runs[run_id]
            if model.state is State.PENDING and not model.backing_off:
                model.state, model.node = State.RUNNING, name
                model.attempt, model.epoch = model.attempt + 1, model.epoch + 1
                expected.append(Lease(run_id, model.attempt, model.epoch))
        assert sorted(taken) == sorted(expected)

    @rule(name=st.sampled_from(["n1", "n2"]))
    def look(self, name: str) -> None:
        """The real claim of an agent: it may take any claimable run, and only such."""
        claimable = {
            run_id
            for run_id, model in self.runs.items()
            if model.state is State.PENDING and not model.backing_off
        }
        for item in claiming.look(self.nodes[name].pk, 1, claiming.Memory(), 4).claimed:
            assert item.lease.run_id in claimable
            model = self.runs[item.lease.run_id]
            model.state, model.node = State.RUNNING, name
            model.attempt, model.epoch = model.attempt + 1, model.epoch + 1
            assert item.lease == Lease(item.lease.run_id, model.attempt, model.epoch)

    @rule(name=st.sampled_from(["n1", "n2"]), crashed=st.booleans())
    def adopt(self, name: str, crashed: bool) -> None:
        mine = [
            run_id
            for run_id, model in self.runs.items()
            if model.node == name and model.state is State.RUNNING
        ]
        for run_id in mine:
            self.runs[run_id].epoch += 1
        adopted = [item.lease for item in self.world.adopt(self.nodes[name], crashed=crashed)]
        assert adopted == [
            Lease(run_id, self.runs[run_id].attempt, self.runs[run_id].epoch) for run_id in sorted(mine)
        ]

    @rule(which=WHICH, stale=STALE, end=ENDS)
    def finish(self, which: int, stale: tuple[int, int], end: State) -> None:
        if (run_id := self.pick(which, {State.RUNNING})) is None:
            return
        lease, good = self.lease(run_id, stale)
        assert self.world.finish(lease, end, exit_code=3) == ({run_id} if good else set())
        if good:
            self.runs[run_id].state = end

    @rule(which=WHICH, stale=STALE, wait=st.booleans())
    def retry(self, which: int, stale: tuple[int, int], wait: bool) -> None:
        if (run_id := self.pick(which, {State.RUNNING})) is None:
            return
        lease, good = self.lease(run_id, stale)
        model = self.runs[run_id]
        good = good and not model.cancel and model.tries > 0
        assert self.world.retry(lease, backoff_s=60.0 if wait else 0.0) == ({run_id} if good else set())
        if good:
            model.state, model.node, model.tries, model.backing_off = (
                State.PENDING,
                None,
                model.tries - 1,
                True,
            )

    @rule(which=WHICH, stale=STALE, wait=st.booleans())
    def release(self, which: int, stale: tuple[int, int], wait: bool) -> None:
        if (run_id := self.pick(which, {State.RUNNING})) is None:
            return
        lease, good = self.lease(run_id, stale)
        model = self.runs[run_id]
        good = good and not model.cancel
        assert self.world.release(lease, backoff_s=5.0 if wait else 0.0) == ({run_id} if good else set())
        if good:
            model.state, model.node, model.backing_off = State.PENDING, None, wait

    @rule(whiches=st.lists(WHICH, max_size=5), stales=st.lists(STALE, min_size=5, max_size=5), end=ENDS)
    def finish_many(self, whiches: list[int], stales: list[tuple[int, int]], end: State) -> None:
        picked = {run_id for which in whiches if (run_id := self.pick(which)) is not None}
        leases = [self.lease(run_id, stale) for run_id, stale in zip(sorted(picked), stales, strict=False)]
        with cursor() as opened:
            ended = transitions.finish(opened, [Outcome(lease, end) for lease, _ in leases], by="n1")
        assert ended == {lease.run_id for lease, good in leases if good}
        for run_id in ended:
            self.runs[run_id].state = end

    @rule(which=WHICH, operator=st.booleans())
    def cancel(self, which: int, operator: bool) -> None:
        if (run_id := self.pick(which)) is None:
            return
        model = self.runs[run_id]
        assert self.world.cancel(run_id, operator=operator) == (
            {run_id} if model.state is State.PENDING else set()
        )
        if model.state is State.PENDING:
            model.state, model.backing_off = State.CANCELLED, False

    @rule(which=WHICH)
    def request_cancel(self, which: int) -> None:
        if (run_id := self.pick(which, {State.RUNNING})) is None:
            return
        model = self.runs[run_id]
        assert self.world.request_cancel(run_id) == ({run_id} if model.state is State.RUNNING else set())
        model.cancel = model.cancel or model.state is State.RUNNING

    @rule(which=WHICH)
    def expire(self, which: int) -> None:
        if (run_id := self.pick(which)) is None:
            return
        Run.objects.filter(pk=run_id).update(expires_at="2020-01-01T00:00:00Z")
        assert self.world.expire() == ({run_id} if self.runs[run_id].state is State.PENDING else set())
        if self.runs[run_id].state is State.PENDING:
            self.runs[run_id].state, self.runs[run_id].backing_off = State.FAILED, False
        Run.objects.filter(pk=run_id).update(expires_at="2100-01-01T00:00:00Z")

    @rule(which=WHICH)
    def reject(self, which: int) -> None:
        if (run_id := self.pick(which)) is None:
            return
        assert self.world.reject(run_id) == ({run_id} if self.runs[run_id].state is State.PENDING else set())
        if self.runs[run_id].state is State.PENDING:
            self.runs[run_id].state, self.runs[run_id].backing_off = State.FAILED, False

    @rule()
    def time_passes(self) -> None:
        """Every backoff is over."""
        waiting = [
            model for model in self.runs.values() if model.state is State.PENDING and model.backing_off
        ]
        Run.objects.filter(not_before__isnull=False).update(not_before="2020-01-01T00:00:00Z")
        assert claiming.promote() == len(waiting)
        for model in waiting:
            model.backing_off = False

    @rule(which=WHICH, stale=STALE)
    def keep(self, which: int, stale: tuple[int, int]) -> None:
        """Renewing, holding and starting change no state."""
        if (run_id := self.pick(which, {State.RUNNING})) is None:
            return
        lease, good = self.lease(run_id, stale)
        expected = {run_id} if good else set()
        assert self.world.renew(lease) == self.world.held(lease) == self.world.started(lease) == expected

    # --- what must hold ---

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        found: dict[int, Any] = {run.pk: run for run in Run.objects.select_related("node")}
        assert set(found) == set(self.runs)
        for run_id, model in self.runs.items():
            row = found[run_id]
            assert (row.state, row.attempt, row.lease_epoch, row.retries_left) == (
                model.state, model.attempt, model.epoch, model.tries,
            )  # fmt: skip
            assert (row.node.name if row.node else None) == model.node
            assert (row.not_before is not None) == model.backing_off
            assert (row.cancel_requested_at is not None) == model.cancel
            assert (row.finished_at is not None) == (row.state in FINAL)

    @invariant()
    def the_books_balance(self) -> None:
        assert_books_balance()

    @invariant()
    def an_attempt_is_open_exactly_while_its_run_is_running(self) -> None:
        numbers: dict[int, list[int]] = {}
        for row in Attempt.objects.order_by("run_id", "number"):
            numbers.setdefault(row.run_id, []).append(row.number)
            model = self.runs[row.run_id]
            is_open = model.state is State.RUNNING and row.number == model.attempt
            assert (row.finished_at is None, row.state == State.RUNNING) == (is_open, is_open)
        for run_id, model in self.runs.items():
            assert numbers.get(run_id, []) == list(range(1, model.attempt + 1))

    @invariant()
    def events_follow_each_other(self) -> None:
        last: dict[int, str] = {}
        for event in RunEvent.objects.order_by("id"):
            assert event.from_state == last.get(event.run_id, State.PENDING)
            assert (State(event.from_state), State(event.to_state)) in LEGAL
            assert event.reason in Reason.values
            last[event.run_id] = event.to_state
        for run_id, model in self.runs.items():
            assert last.get(run_id, State.PENDING) == model.state


def explore(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None),
    )


def test_any_order_of_calls(db: None) -> None:
    """Catches: what no test of a single edge thinks of, such as a release after an adoption after a retry."""
    explore(25, 30)


@pytest.mark.long
def test_any_order_of_calls_for_long(db: None) -> None:
    explore(1500, 60)
