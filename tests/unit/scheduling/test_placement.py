"""Placement as properties: what must hold of ``choose`` in every situation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.scheduling.placing import (
    NOW_US,
    PROFILE,
    URGENT,
    Situation,
    a_node,
    a_shape,
    queue,
    situations,
)
from workers.scheduling.placement import Choice, Usage


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
