"""Placement as properties: what must hold of ``choose`` and ``obstacles`` in every situation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from workers.placement import (
    Candidate,
    Choice,
    NodeView,
    Obstacle,
    ShapeView,
    Usage,
    as_json,
    choose,
    obstacles,
)

NOW_US = 1_000_000_000
AGING_US = 300_000_000
#: Ranks at or below this are urgent: high priority, or normal work that has waited for the aging time.
URGENT = NOW_US - AGING_US

#: The same examples each time: a failure in CI is one that a person can repeat.
settings.register_profile("placement", deadline=None, database=None, derandomize=True, max_examples=120)
PROFILE = settings.get_profile("placement")

Queues = list[tuple[ShapeView, list[Candidate]]]


@dataclass(frozen=True)
class Situation:
    """A node, what waits, and what every tenant holds."""

    node: NodeView
    queues: Queues
    usage: dict[int, Usage]
    limit: int

    def choose(
        self,
        queues: Queues | None = None,
        overdue: Mapping[int, float] | None = None,
        elsewhere: frozenset[int] = frozenset(),
    ) -> Choice:
        return choose(
            self.node,
            self.queues if queues is None else queues,
            self.usage,
            now_us=NOW_US,
            aging_us=AGING_US,
            limit=self.limit,
            overdue=overdue or {},
            reserved_elsewhere=elsewhere,
        )

    def shape_of(self, run_id: int) -> ShapeView:
        return next(shape for shape, items in self.queues if run_id in [item.run_id for item in items])

    def rank_of(self, run_id: int) -> tuple[int, int]:
        return next(
            (item.rank, run_id) for _, items in self.queues for item in items if item.run_id == run_id
        )

    def waiting(self) -> dict[int, ShapeView]:
        return {item.run_id: shape for shape, items in self.queues for item in items}

    def heads(self) -> dict[int, ShapeView]:
        return {items[0].run_id: shape for shape, items in self.queues if items}

    def free_after(self, taken: Sequence[int]) -> tuple[int, int, int]:
        shapes = [self.shape_of(run_id) for run_id in taken]
        return (
            self.node.cpu_m_free - sum(shape.cpu_m for shape in shapes),
            self.node.mem_mb_free - sum(shape.mem_mb for shape in shapes),
            self.node.slots_free - len(shapes),
        )

    def fits_after(self, taken: Sequence[int], shape: ShapeView) -> bool:
        cpu, mem, slots = self.free_after(taken)
        return shape.cpu_m <= cpu and shape.mem_mb <= mem and slots > 0


def a_node(**changes: Any) -> NodeView:
    """An idle node of 8 CPU and 16 GiB."""
    given = {
        "id": 1,
        "name": "n1",
        "mode": "ready",
        "silent_s": None,
        "trouble": "",
        "runtimes": frozenset({"process"}),
        "attributes": {"hostname": "h1", "rack_id": "r1"},
        "isolates_users": True,
        "cpu_m": 8000,
        "cpu_m_free": 8000,
        "mem_mb": 16384,
        "mem_mb_free": 16384,
        "slots_free": 64,
        **changes,
    }
    return NodeView(**given)


def a_shape(shape_id: int = 1, **changes: Any) -> ShapeView:
    given = {
        "id": shape_id,
        "tenant_id": 1,
        "kind": "process",
        "cpu_m": 1000,
        "mem_mb": 512,
        "constraints": {},
        "trusted": True,
        **changes,
    }
    return ShapeView(**given)


def queue(*ranks: int, first_id: int = 1) -> list[Candidate]:
    return [Candidate(first_id + number, rank) for number, rank in enumerate(ranks)]


#: Parts of a capacity, in quarters: often everything, sometimes nothing.
QUARTERS = st.sampled_from([0, 1, 2, 3, 4, 4, 4])


@st.composite
def nodes(draw: st.DrawFn) -> NodeView:
    cpu = draw(st.sampled_from([1000, 4000, 16_000, 16_000]))
    mem = draw(st.sampled_from([1024, 8192, 65_536]))
    return a_node(
        cpu_m=cpu,
        mem_mb=mem,
        cpu_m_free=cpu * draw(QUARTERS) // 4,
        mem_mb_free=mem * draw(QUARTERS) // 4,
        slots_free=draw(st.sampled_from([0, 1, 3, 8, 64, 64])),
    )


@st.composite
def situations(draw: st.DrawFn, tenants: int = 3) -> Situation:
    """Some runs are urgent, most are not; some shapes never fit, most do for a while."""
    run_ids = iter(range(1, 1000))
    queues: Queues = []
    for shape_id in range(1, draw(st.integers(2, 6)) + 1):
        shape = a_shape(
            shape_id,
            tenant_id=draw(st.integers(1, tenants)),
            cpu_m=draw(st.sampled_from([100, 500, 500, 1000, 2000, 4000, 16_000])),
            mem_mb=draw(st.sampled_from([64, 64, 256, 1024, 8192])),
        )
        ranks = draw(st.lists(st.integers(URGENT - 20, URGENT + 40), min_size=1, max_size=6))
        queues.append((shape, [Candidate(next(run_ids), rank) for rank in sorted(ranks)]))
    usage = {
        tenant: Usage(draw(st.integers(0, 40)) * 500, draw(st.integers(0, 20)) * 256)
        for tenant in draw(st.sets(st.integers(1, tenants)))
    }
    return Situation(draw(nodes()), queues, usage, draw(st.sampled_from([1, 4, 16, 16])))


# --- choose -----------------------------------------------------------------------------------------------


@PROFILE
@given(situations(), st.data())
def test_what_is_taken_fits_together_and_stays_within_the_limit(now: Situation, data: st.DataObject) -> None:
    """Catches: a sum over capacity, one slot too many, more than asked for, a run twice or out of nowhere.

    Also with overdue and reserved runs, which take another way through ``choose``.
    """
    heads = sorted(now.heads())
    overdue = {
        run_id: float(run_id)
        for run_id in data.draw(st.sets(st.sampled_from(heads)) if heads else st.just([]))
    }
    reserved = data.draw(st.sampled_from([None, *heads]))
    choice = replace(now, node=replace(now.node, reserved_for=reserved)).choose(overdue=overdue)
    assert len(set(choice.take)) == len(choice.take) <= now.limit
    assert set(choice.take) <= set(now.waiting())
    assert min(now.free_after(choice.take)) >= 0


@PROFILE
@given(situations())
def test_each_shape_gives_its_oldest_runs(now: Situation) -> None:
    """Catches: a queue that is not taken from its front."""
    taken = set(now.choose().take)
    for _, items in now.queues:
        flags = [item.run_id in taken for item in items]
        assert flags == sorted(flags, reverse=True)


@PROFILE
@given(situations())
def test_within_a_tenant_the_rank_decides(now: Situation) -> None:
    """Catches: a younger run of a tenant before an older one that would have fitted."""
    choice = now.choose()
    for tenant in {shape.tenant_id for shape, _ in now.queues}:
        taken = [now.rank_of(run_id) for run_id in choice.take if now.shape_of(run_id).tenant_id == tenant]
        assert taken == sorted(taken)
        left = [
            run_id
            for run_id, shape in now.waiting().items()
            if shape.tenant_id == tenant and run_id not in choice.take
        ]
        for run_id in left:
            if taken and now.rank_of(run_id) < taken[-1]:
                assert not now.fits_after(choice.take, now.shape_of(run_id))


@PROFILE
@given(situations())
def test_nothing_that_fits_is_left_while_there_is_room(now: Situation) -> None:
    """Catches: a look that stops early, for example at the first run that does not fit."""
    choice = now.choose()
    if len(choice.take) < now.limit:
        left = set(now.waiting()) - set(choice.take)
        assert not [run_id for run_id in left if now.fits_after(choice.take, now.shape_of(run_id))]


@PROFILE
@given(situations())
def test_high_priority_goes_first_whoever_owns_it(now: Situation) -> None:
    """Catches: fairness or age that puts normal work before urgent work which would have fitted."""
    choice = now.choose()
    urgent = [now.rank_of(run_id)[0] <= URGENT for run_id in choice.take]
    assert urgent == sorted(urgent, reverse=True)
    if not all(urgent):
        for run_id in set(now.waiting()) - set(choice.take):
            if now.rank_of(run_id)[0] <= URGENT:
                assert not now.fits_after(choice.take, now.shape_of(run_id))


@PROFILE
@given(situations())
def test_each_place_goes_to_the_tenant_with_the_smallest_share(now: Situation) -> None:
    """Catches: a tenant served again while one that holds less, and would have fitted, waits.

    Plays the choice again one by one, with shares counted from the definition: the larger of the tenant's
    part of the node's CPU and of its memory.
    """
    held = {tenant: (item.cpu_m, item.mem_mb) for tenant, item in now.usage.items()}

    def share(tenant: int) -> float:
        cpu, mem = held.get(tenant, (0, 0))
        return max(cpu / now.node.cpu_m, mem / now.node.mem_mb)

    choice = now.choose()
    for number, run_id in enumerate(choice.take):
        before = choice.take[:number]
        shape = now.shape_of(run_id)
        if now.rank_of(run_id)[0] > URGENT:
            rivals = [
                other.tenant_id
                for other_id, other in now.waiting().items()
                if other_id not in before and now.fits_after(before, other)
            ]
            assert share(shape.tenant_id) <= min(share(tenant) for tenant in rivals) + 1e-9
        cpu, mem = held.get(shape.tenant_id, (0, 0))
        held[shape.tenant_id] = (cpu + shape.cpu_m, mem + shape.mem_mb)


@PROFILE
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 64))
def test_two_tenants_with_equal_work_get_equal_parts(many: int, few: int, limit: int) -> None:
    """Catches: the tenant that submitted 60 before the other's first one gets all the room."""
    first, second = a_shape(1, tenant_id=1), a_shape(2, tenant_id=2)
    queues = [
        (first, queue(*range(URGENT + 1, URGENT + 1 + many))),
        (second, queue(*[NOW_US] * few, first_id=1000)),
    ]
    choice = Situation(a_node(), queues, {}, limit).choose()
    room = min(8, limit)
    ones = sum(run_id < 1000 for run_id in choice.take)
    twos = len(choice.take) - ones
    assert len(choice.take) == min(room, many + few)
    assert ones == many or twos == few or abs(ones - twos) <= 1


@PROFILE
@given(situations(), st.data())
def test_an_overdue_run_gets_the_node(now: Situation, data: st.DataObject) -> None:
    """Catches: starvation of a large run: it goes first if it fits, else nothing else is taken after it."""
    heads = sorted(now.heads())
    assume(heads)
    run_id = data.draw(st.sampled_from(heads))
    choice = now.choose(overdue={run_id: 0.0})
    if now.fits_after([], now.shape_of(run_id)):
        assert choice.take[0] == run_id
        assert choice.reserve is None
    else:
        assert (choice.take, choice.reserve) == ([], run_id)


@PROFILE
@given(situations(), st.data())
def test_of_several_overdue_runs_the_reserved_one_then_the_oldest_comes_first(
    now: Situation, data: st.DataObject
) -> None:
    """Catches: two large runs that take the node from each other in turn, so that neither ever fits."""
    heads = sorted(now.heads())
    assume(len(heads) > 1)
    since = data.draw(st.permutations(range(len(heads))))
    overdue = {run_id: float(at) for run_id, at in zip(heads, since, strict=True)}
    reserved = data.draw(st.sampled_from([None, *heads]))
    first = reserved or min(overdue, key=overdue.__getitem__)
    choice = replace(now, node=replace(now.node, reserved_for=reserved)).choose(overdue=overdue)
    assert choice.take[:1] == [first] or choice.reserve == first


@PROFILE
@given(situations(), st.data())
def test_a_run_that_another_node_is_kept_for_holds_up_nothing_here(
    now: Situation, data: st.DataObject
) -> None:
    """Catches: one large run that empties every node of the cluster at once."""
    heads = sorted(now.heads())
    assume(heads)
    run_id = data.draw(st.sampled_from(heads))
    kept = now.choose(overdue={run_id: 0.0}, elsewhere=frozenset({run_id}))
    assert kept == now.choose()


@PROFILE
@given(situations(), st.randoms(use_true_random=False))
def test_the_order_of_the_question_does_not_matter(now: Situation, random: Any) -> None:
    """Catches: a decision that depends on the order in which the database returned the shapes."""
    shuffled = list(now.queues)
    random.shuffle(shuffled)
    assert now.choose(shuffled) == now.choose()


@PROFILE
@given(situations())
def test_passed_over_are_those_that_did_not_fit_while_a_later_one_was_taken(now: Situation) -> None:
    """Catches: a large run whose waiting is not counted, or a small one that is counted without a reason."""
    choice = now.choose()
    taken_ranks = [now.rank_of(run_id)[0] for run_id in choice.take]
    for run_id in choice.passed_over:
        assert not now.fits_after(choice.take, now.shape_of(run_id))
    for shape, items in now.queues:
        left = [item for item in items if item.run_id not in choice.take]
        if left and not now.fits_after([], shape) and any(rank > left[0].rank for rank in taken_ranks):
            assert left[0].run_id in choice.passed_over


def test_a_tenant_with_less_is_passed_over_too_when_older_work_of_another_fills_the_node() -> None:
    """Catches: a large run behind another tenant's long queue waits until that queue has drained.

    By its tenant's share it comes first; it does not fit; every run taken instead has passed it over.
    """
    small, large = a_shape(1, tenant_id=1), a_shape(2, tenant_id=2, cpu_m=8000)
    node = a_node(cpu_m_free=1000)
    queues = [(small, queue(*range(URGENT + 1, URGENT + 9))), (large, queue(NOW_US, first_id=100))]
    choice = Situation(node, queues, {1: Usage(7000, 3584)}, 16).choose()
    assert (choice.take, choice.passed_over) == ([1], {100})


def test_nothing_waits() -> None:
    assert Situation(a_node(), [], {}, 16).choose() == Choice()
    assert Situation(a_node(), [(a_shape(), [])], {}, 16).choose() == Choice()


# --- obstacles --------------------------------------------------------------------------------------------


@st.composite
def any_node(draw: st.DrawFn) -> NodeView:
    node = draw(nodes())
    return replace(
        node,
        mode=draw(st.sampled_from(["ready", "ready", "draining", "removed"])),
        silent_s=draw(st.sampled_from([None, None, 45.0])),
        trouble=draw(st.sampled_from(["", "", "only 3 MiB free in /data"])),
        runtimes=frozenset(draw(st.sets(st.sampled_from(["process", "container"])))),
        attributes=draw(st.sampled_from([{}, {"rack_id": "r1"}, {"rack_id": "r2", "hostname": "h2"}])),
        isolates_users=draw(st.booleans()),
    )


@st.composite
def any_shape(draw: st.DrawFn) -> ShapeView:
    return a_shape(
        kind=draw(st.sampled_from(["process", "container"])),
        cpu_m=draw(st.sampled_from([100, 1000, 4000, 16000])),
        mem_mb=draw(st.sampled_from([64, 1024, 8192])),
        constraints=draw(
            st.sampled_from([{}, {"rack_id": ["r1"]}, {"rack_id": ["r1", "r2"], "hostname": ["h2"]}])
        ),
        trusted=draw(st.booleans()),
    )


def at_rest(node: NodeView) -> NodeView:
    """The node with everything free and nothing wrong."""
    return replace(
        node,
        mode="ready",
        silent_s=None,
        trouble="",
        cpu_m_free=node.cpu_m,
        mem_mb_free=node.mem_mb,
        slots_free=64,
    )


@PROFILE
@given(any_shape(), any_node())
def test_no_obstacle_means_that_it_is_chosen_and_an_obstacle_that_it_is_not(
    shape: ShapeView, node: NodeView
) -> None:
    """Catches: an explanation that does not agree with what claiming does.

    Claiming offers to ``choose`` what has passing obstacles only, and looks for work on a ready node without
    trouble; a silent node does not look at all.
    """
    found = obstacles(shape, node)
    looks = node.mode == "ready" and not node.trouble and node.silent_s is None
    offered = looks and all(item.passing for item in found)
    taken = Situation(node, [(shape, queue(NOW_US))], {}, 1).choose().take if offered else []
    assert (not found) == bool(taken)


@PROFILE
@given(any_shape(), any_node())
def test_passing_obstacles_vanish_and_the_others_do_not(shape: ShapeView, node: NodeView) -> None:
    """Catches: "wait" said of what never comes, or "never" said of what only has to wait.

    It also keeps a node from being reserved for what it could never hold.
    """
    found = obstacles(shape, node)
    if node.mode == "ready":
        assert all(item.passing for item in found) == (not obstacles(shape, at_rest(node)))
    elif found:
        assert not all(item.passing for item in found)


@PROFILE
@given(any_shape(), any_node(), st.integers(0, 4), st.integers(0, 4))
def test_more_room_is_never_an_obstacle(shape: ShapeView, node: NodeView, cpus: int, gibs: int) -> None:
    """Catches: a comparison the wrong way round."""
    more = replace(
        node,
        cpu_m_free=min(node.cpu_m, node.cpu_m_free + cpus * 1000),
        mem_mb_free=min(node.mem_mb, node.mem_mb_free + gibs * 1024),
        slots_free=node.slots_free + 1,
    )
    assert {item.code for item in obstacles(shape, more)} <= {item.code for item in obstacles(shape, node)}


@PROFILE
@given(any_shape(), any_node())
@example(a_shape(cpu_m=16000), a_node())
def test_every_obstacle_says_what_is_wrong_and_what_to_do(shape: ShapeView, node: NodeView) -> None:
    """Catches: an explanation without the node's name or the remedy; a number that says nothing."""
    for item in obstacles(shape, node):
        assert node.name in item.message
        assert item.remedy
        told = as_json(item)
        assert list(told) == ["code", "message", "need", "free", "quota", "blocked_by", "remedy"]
        if item.code in ("cpu", "mem", "cpu_total", "mem_total"):
            assert item.need is not None
            assert item.free is not None
            assert item.need > item.free


@pytest.mark.parametrize(
    ("shape", "node", "code", "message"),
    [
        (
            a_shape(constraints={"rack_id": ["r8", "r9"]}),
            a_node(),
            "constraint",
            "node n1 has rack_id r1, not one of [r8, r9]",
        ),
        (
            a_shape(constraints={"zone": ["a"]}),
            a_node(),
            "constraint",
            "node n1 has zone (none), not one of [a]",
        ),
        (a_shape(kind="container"), a_node(), "runtime", "node n1 offers no container runtime"),
        (
            a_shape(trusted=False),
            a_node(isolates_users=False),
            "not_isolated",
            "node n1 runs commands as its own user, which this tenant may not use",
        ),
        (a_shape(cpu_m=8100), a_node(), "cpu_total", "it needs 8.1 CPU, node n1 has 8"),
        (a_shape(mem_mb=16385), a_node(), "mem_total", "it needs 16385 MiB of memory, node n1 has 16384"),
        (a_shape(), a_node(mode="draining"), "draining", "node n1 is draining"),
        (a_shape(), a_node(mode="removed"), "node_removed", "node n1 was removed"),
        (a_shape(), a_node(silent_s=61.4), "silent", "node n1 has been silent for 61 s"),
        (a_shape(), a_node(trouble="disk full"), "trouble", "node n1 takes no work: disk full"),
        (a_shape(), a_node(cpu_m_free=250), "cpu", "it needs 1 CPU, node n1 has free 0.25"),
        (a_shape(), a_node(mem_mb_free=511), "mem", "it needs 512 MiB of memory, node n1 has free 511"),
        (a_shape(), a_node(slots_free=0), "slots", "node n1 runs as many things as it may at once"),
    ],
)
def test_the_words_of_an_obstacle(shape: ShapeView, node: NodeView, code: str, message: str) -> None:
    """Exact words: an operator reads them at night, and people search for them."""
    (found,) = obstacles(shape, node)
    assert (found.code, found.message) == (code, message)


def test_what_lasts_is_told_before_what_passes() -> None:
    """Catches: "wait for running work to end" of a node that lacks the constraint anyway."""
    found: list[Obstacle] = obstacles(
        a_shape(constraints={"rack_id": ["r9"]}, cpu_m=8100), a_node(mode="draining", cpu_m_free=0)
    )
    assert [item.code for item in found] == ["constraint", "cpu_total"]
