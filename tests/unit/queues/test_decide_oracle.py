"""Decisions on random snapshots against a plain model (tests.unit.queues.model)."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from queues.admission.decide import (
    Aggregate,
    Class,
    Head,
    Host,
    Reservation,
    Snapshot,
    decide,
)
from tests.unit.queues.deciding import admitted, apply, gang
from tests.unit.queues.model import Model

settings.register_profile("decisions", deadline=None, database=None, max_examples=120)
PROFILE = settings.get_profile("decisions")


NEEDS = st.one_of(
    st.builds(lambda count, cpu: gang(count, cpu=cpu), st.integers(1, 3), st.integers(1, 4)),
    st.builds(lambda cpu, mem: gang(1, cpu=cpu, mem=mem), st.integers(1, 4), st.integers(1, 4)),
    st.builds(lambda cpu, mem: gang(1, cpu=cpu) + gang(2, mem=mem), st.integers(1, 3), st.integers(1, 3)),
    st.just(gang(1, gpu=1)),
)
AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "mem"]), st.integers(0, 9))


@st.composite
def hosts(draw: st.DrawFn, id_: int) -> Host:
    total = {"cpu": draw(st.integers(0, 6)), "mem": draw(st.integers(0, 6))}
    used, more = draw(st.integers(0, 4)), draw(st.sampled_from([0, 0, 0, 4]))
    free = {name: draw(st.sampled_from([amount, amount - used])) for name, amount in total.items()}
    return Host(id_, str(id_), free, total, {name: amount + more for name, amount in total.items()})


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    names = draw(st.sampled_from(["a", "ab", "abc"]))
    there = tuple(
        Aggregate(
            name,
            tuple(draw(hosts(10 * number + each)) for each in range(draw(st.integers(1, 3)))),
            draw(st.sampled_from([None, None, None, frozenset({1}), frozenset({2, 3})])),
        )
        for number, name in enumerate(names)
    )
    needs = draw(st.lists(NEEDS, min_size=1, max_size=4))
    kinds = st.tuples(
        st.sampled_from([1, 1, 2, 3]),
        st.sampled_from(["o", "p"]),
        st.sampled_from(needs),
        st.sampled_from(["", "", "", *names, "nowhere"]),
    )
    groups: dict[Any, list[Head]] = {}
    entries = draw(st.lists(kinds, min_size=1, max_size=12))
    for id_, kind in enumerate(entries, start=1):
        # A few share a number; some have overtaken others.
        since = float(draw(st.integers(1, 12)))
        groups.setdefault(kind, []).append(Head(id_, id_ // 3, f"{id_:02}", since))
    classes = [
        Class(100 + number, queue, queue, owner, need, bound, tuple(heads), len(heads))
        for number, ((queue, owner, need, bound), heads) in enumerate(groups.items())
    ]
    owners = st.tuples(st.integers(1, 3), st.sampled_from(["o", "p"]))
    kept = st.builds(Reservation, st.integers(1, len(entries)), st.sampled_from(names))
    return Snapshot(
        strict=draw(st.booleans()),
        aggregates=there,
        classes=tuple(draw(st.permutations(classes))),
        held=draw(st.dictionaries(owners, AMOUNTS, max_size=3)),
        quotas=draw(st.dictionaries(owners, AMOUNTS, max_size=3)),
        shares=draw(st.dictionaries(st.integers(1, 3), AMOUNTS)),
        reservation=draw(st.one_of(st.none(), kept)),
    )


@PROFILE
@given(snapshots())
def test_decisions_are_the_model_s(now: Snapshot) -> None:
    """Catches: any other set or order, a level that is wrong, more taken than is free or than a quota has.

    Also: a gang in two aggregates, one that passes a strict head, a reservation lost or given wrongly.
    """
    decision = decide(now)
    model = Model(now, decision.reservation)
    for step in decision.admitted:
        expected = model.next()
        assert expected is not None
        one, where = expected
        assert step.entry == one.id
        assert step.aggregate in where
        model.admit(one, step)
    assert model.next() is None
    assert not decision.more
    told = {}
    for cls in now.classes:
        left = [each.id for each in model.waiting if each.cls is cls]
        if left:
            told[cls.id] = model.levels[left[0]]
    assert {class_id: verdict.level for class_id, verdict in decision.verdicts.items()} == told
    kept = decision.reservation
    assert (kept and (kept.entry, kept.aggregate)) == (
        (model.kept[0].id, model.kept[1]) if model.kept else None
    )
    event(f"strict {now.strict}, admitted {min(3, len(decision.admitted))}")


@PROFILE
@given(snapshots())
def test_a_second_look_finds_nothing(now: Snapshot) -> None:
    """Catches: an entry that has to wait for the next look by the clock although it could go now.

    And: an explanation, made from what is so after the decision, that says something else than the decision.
    """
    first = decide(now)
    second = decide(apply(now, first))
    assert not second.admitted
    assert second.verdicts == first.verdicts
    assert second.reservation == first.reservation


@PROFILE
@given(snapshots(), st.integers(1, 3))
def test_a_limit_changes_nothing_but_the_number_of_looks(now: Snapshot, most: int) -> None:
    """Catches: another order, a lost reservation, an entry skipped where a decision is cut into pieces."""
    whole, pieces = decide(now), []
    while True:
        part = decide(now, most)
        pieces += admitted(part)
        now = apply(now, part)
        if not part.more:
            break
    assert pieces == admitted(whole)
    assert part.verdicts == whole.verdicts
