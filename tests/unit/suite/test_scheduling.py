"""Who is given which test when: made-up workers, asked for nothing but what they were told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.support.passes import ALONE, DAEMONS, FAULTS, PURE, Place
from tests.support.scheduling import PassScheduling


@dataclass(eq=False)
class Worker:
    """Like xdist's: begins a test when it knows the next item."""

    shutting_down: bool = False
    told: list[int] = field(default_factory=list)

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.told += indices

    @property
    def running(self) -> int | None:
        return self.told[0] if len(self.told) > 1 else None


def place(number: int, name: str, group: str = "", *, whole: bool = False) -> Place:
    return Place(name, number, group or name, whole, 1)


class Run:
    """Workers that finish their tests in some order."""

    def __init__(self, workers: int, plan: list[Place]) -> None:
        self.plan = plan
        self.ids = [entry.id for entry in plan]
        self.scheduling = PassScheduling(workers, lambda: plan)
        self.workers = [Worker() for _ in range(workers)]
        self.done: list[tuple[Worker, Place]] = []
        for worker in self.workers:
            self.scheduling.add_node(worker)
        for worker in self.workers:
            self.join(worker)

    def join(self, worker: Worker) -> None:
        self.scheduling.add_node_collection(worker, [*self.ids, "barrier"])
        if self.scheduling.collection_is_completed:
            self.scheduling.schedule()
            self._pass_barriers()

    def able(self) -> list[Worker]:
        """Who is in the middle of a test."""
        return [worker for worker in self.workers if worker.running is not None]

    def running(self) -> list[Place]:
        return [self.plan[worker.told[0]] for worker in self.able()]

    @property
    def idle(self) -> bool:
        """Has somebody nothing to do?"""
        return len(self.able()) < len(self.workers)

    def finish(self, worker: Worker) -> None:
        index = worker.told.pop(0)
        self.done.append((worker, self.plan[index]))
        self.scheduling.mark_test_complete(worker, index)
        self._pass_barriers()

    def _pass_barriers(self) -> None:
        while passing := [worker for worker in self.workers if worker.running == len(self.plan)]:
            self.scheduling.mark_test_complete(passing[0], passing[0].told.pop(0))

    def to_the_end(self, choose: random.Random) -> None:
        for _ in range(10_000):
            if self.scheduling.tests_finished:
                return
            assert self.able(), "tests are left and nobody can begin one"
            numbers = {entry.number for entry in self.running()}
            assert ALONE not in numbers or len(self.running()) == 1, "something beside what measures time"
            self.finish(choose.choice(self.able()))
        raise AssertionError("it does not end")


def many(count: int) -> list[Place]:
    """Files of several sizes in every pass."""
    return [
        *(place(PURE, f"pure{n}", f"file{n // 7}") for n in range(count)),
        *(place(DAEMONS, f"daemon{n}", f"compose{n // 5}", whole=n < 5) for n in range(count)),
        *(place(FAULTS, f"fault{n}") for n in range(count)),
        *(place(ALONE, f"alone{n}") for n in range(count)),
    ]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 9, 23])
def test_every_test_runs_once_in_the_order_of_the_passes(workers: int, count: int) -> None:
    """Of one pass before the next, as far as somebody is free for it; what measures time after all others."""
    for seed in range(5):
        run = Run(workers, many(count))
        run.to_the_end(random.Random(seed))
        assert sorted(entry.id for _, entry in run.done) == sorted(run.ids)
        numbers = [entry.number for _, entry in run.done]
        assert numbers[-count:] == [ALONE] * count
        if workers == 1:
            assert numbers == sorted(numbers)


def test_nobody_waits_for_the_longest_test_of_a_pass() -> None:
    """Catches a barrier: the rest of a pass is waited for by workers with nothing to do."""
    plan = [
        *(
            place(DAEMONS, "compose0", "compose", whole=True),
            place(DAEMONS, "compose1", "compose", whole=True),
        ),
        *(place(DAEMONS, f"daemon{n}", "file") for n in range(4)),
        *(place(FAULTS, f"fault{n}") for n in range(4)),
        place(ALONE, "alone"),
    ]
    run = Run(2, plan)
    long, other = run.workers
    assert run.plan[long.told[0]].id == "compose0"
    for _ in range(8):
        assert not run.idle
        run.finish(other)
    assert [entry.id for _, entry in run.done] == [
        *(f"daemon{n}" for n in range(4)),
        *(f"fault{n}" for n in range(4)),
    ]
    assert other.running is None, "what measures time waits for what runs"
    for _ in range(2):
        run.finish(long)
    assert [entry.id for entry in run.running()] == ["alone"]


def test_no_pass_begins_while_there_is_something_to_take_of_the_one_before() -> None:
    for seed in range(20):
        run, choose = Run(3, many(11)), random.Random(seed)
        while not run.scheduling.tests_finished:
            begun = [entry.number for entry in run.running() if not entry.whole]
            known = {index for worker in run.workers for index in worker.told}
            left = [
                entry.number for index, entry in enumerate(run.plan)
                if index not in known and not entry.whole and entry not in {by for _, by in run.done}
            ]  # fmt: skip
            assert not left or max(begun, default=0) <= min(left)
            run.finish(choose.choice(run.able()))


def test_what_measures_time_has_nothing_beside_it() -> None:
    run = Run(4, many(6))
    while run.running()[0].number != ALONE:
        run.finish(run.able()[0])
    for _ in range(6):
        assert len(run.running()) == 1
        run.finish(run.able()[0])
    assert run.scheduling.tests_finished


def test_a_file_stays_on_its_worker_until_somebody_has_nothing_else_to_do() -> None:
    """With two files for two workers nobody changes; a third worker takes half of one."""
    plan = [place(DAEMONS, f"{name}{n}", name) for name in "ab" for n in range(6)]
    two = Run(2, plan)
    for _ in range(3):
        for worker in two.workers:
            two.finish(worker)
    assert all(len({entry.group for by, entry in two.done if by is worker}) == 1 for worker in two.workers)
    three = Run(3, plan)
    assert three.workers[2].told
    assert {plan[index].group for index in three.workers[2].told if index < 12} in ({"a"}, {"b"})


def test_who_shares_what_must_not_be_there_twice_stays_together() -> None:
    plan = [place(DAEMONS, f"compose{n}", "compose", whole=True) for n in range(9)]
    run = Run(3, plan)
    run.to_the_end(random.Random(1))
    assert len({id(worker) for worker, _ in run.done}) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_the_test_a_worker_died_of_is_named_and_the_others_run(workers: int) -> None:
    """Catches xdist's own way: the same test is given to the next worker, which dies of it, too."""
    for victim in range(0, 59, 7):
        run = Run(workers, many(15))
        choose = random.Random(victim)
        for _ in range(victim):
            run.finish(choose.choice(run.able()))
        dead = run.able()[0]
        index = dead.told[0]
        assert run.scheduling.remove_node(dead) == run.plan[index].id
        assert not run.scheduling.tests_finished
        run.workers[run.workers.index(dead)] = Worker()
        for worker in run.workers:
            if worker not in run.scheduling.nodes:
                run.scheduling.add_node(worker)
                run.join(worker)
        run.to_the_end(choose)
        assert sorted([run.plan[index].id, *(entry.id for _, entry in run.done)]) == sorted(run.ids)


def test_who_dies_between_tests_died_of_none() -> None:
    run = Run(2, [place(FAULTS, "a"), place(FAULTS, "b"), place(ALONE, "c")])
    first = run.able()[0]
    run.finish(first)
    assert first.told
    assert run.scheduling.remove_node(first) is None


def test_workers_that_collect_other_tests_are_an_error() -> None:
    scheduling = PassScheduling(2, lambda: [place(PURE, "a")])
    workers = [Worker(), Worker()]
    for worker, ids in zip(workers, (["a", "barrier"], ["b", "barrier"]), strict=True):
        scheduling.add_node(worker)
        scheduling.add_node_collection(worker, ids)
    with pytest.raises(RuntimeError, match="other tests"):
        scheduling.schedule()


def test_without_tests_there_is_nothing_to_wait_for() -> None:
    scheduling = PassScheduling(1, list)
    worker = Worker()
    scheduling.add_node(worker)
    scheduling.add_node_collection(worker, [])
    scheduling.schedule()
    assert scheduling.tests_finished
    assert not worker.told
