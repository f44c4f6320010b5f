"""What an explanation asks of the decision is what the whole decision says (queues.admission.trial)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from queues.admission import asked as what
from queues.admission import packing
from queues.admission.asked import Asked, ask
from queues.admission.decide import Level, Snapshot, decide
from queues.admission.search import Found
from queues.admission.trial import Known, Trial
from queues.needs import Need
from tests.unit.queues.deciding import aggregate, cpus, seen, waiting
from tests.unit.queues.test_decide_oracle import PROFILE, snapshots


def changed(asked: Asked) -> Iterator[Asked]:
    """The question, and what explanations ask beside it; what was worked out for one is there for the next"""
    snapshot, cls = asked.snapshot, asked.cls
    yield asked
    yield what.moved_to_front(asked)
    for each in snapshot.classes[:3]:
        if each.id != cls.id:
            yield what.without(asked, each.heads[0].id)
    yield what.unbound(asked)
    for there in snapshot.aggregates:
        freed = {there.hosts[0].id: {"cpu": 3}}
        yield what.with_freed(asked, freed, cls.owner, {"cpu": 3})
    for amount in (0, 4, 9):
        yield what.with_quota(asked, "cpu", amount)
    yield what.with_host(asked, "new", {"cpu": 4, "mem": 4})
    yield what.with_host(asked, snapshot.aggregates[0].name, {"cpu": 4, "mem": 4})
    yield asked


@given(st.data())
@PROFILE
def test_a_trial_tells_what_the_decision_tells(data: st.DataObject) -> None:
    """Catches a round that ends too early, and what was worked out for another snapshot."""
    snapshot: Snapshot = data.draw(snapshots())
    for cls in snapshot.classes:
        for head in cls.heads[:2]:
            for each in changed(ask(snapshot, cls.id, head)):
                whole, short = decide(each.snapshot, most=10_000), each.decision
                verdict = each.verdict(whole)
                event(str(verdict.level))
                assert each.verdict(short) == verdict
                assert each.goes() == any(one.entry == head.id for one in whole.admitted)
                if verdict.level in (Level.BEHIND, Level.NO_CAPACITY):
                    assert short.reservation == whole.reservation


def test_a_round_ends_when_nobody_goes_anywhere_any_more() -> None:
    """Catches an explanation that costs what all that wait cost, not what is before its entry."""
    classes = [waiting(number, cpus(4), owner=f"o{number}") for number in range(10, 210)]
    snapshot = seen(*classes, there=(aggregate("a", 2, total=8), aggregate("b", 2, total=8)), strict=True)
    asked = ask(snapshot, classes[150].id, classes[150].heads[0])
    looked_at = []

    class Counted(Trial):
        def _try(self, cls, head):  # type: ignore[no-untyped-def]
            looked_at.append(cls.id)
            return super()._try(cls, head)

    decision = Counted(asked.snapshot, asked.cls.id, {}).run(10_000)
    assert asked.verdict(decision).blocked_by == 10
    assert looked_at == [classes[0].id, asked.cls.id]


def test_its_owner_s_entry_that_waits_for_the_quota_is_named_though_nobody_goes_anywhere() -> None:
    """Catches a round that ends early and forgets who of the same owner is before it."""
    first = waiting(1, cpus(8), owner="p")
    over = waiting(2, cpus(3), owner="o")
    mine = waiting(3, cpus(1), owner="o")
    quotas = {(1, "o"): {"cpu": 3}}
    held = {(1, "o"): {"cpu": 1}}
    there = (aggregate("a", 4, total=8),)
    asked = ask(
        seen(first, over, mine, there=there, strict=True, quotas=quotas, held=held), mine.id, mine.heads[0]
    )
    assert asked.verdict(decide(asked.snapshot)).blocked_by == 2
    assert asked.verdict(asked.decision).blocked_by == 2


def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every search for a place, by the steps that it might take; none finds anything."""
    limits: list[int] = []

    def searched(need: Need, names: object, hosts: object, steps: int) -> Found:
        limits.append(steps)
        return Found(None, sure=False, steps=steps)

    monkeypatch.setattr(packing, "search", searched)
    return limits


def mixed(*sizes: int) -> Need:
    return tuple((1, (("cpu", size),)) for size in sizes)


def test_what_was_searched_for_is_not_searched_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an explanation of a tight mixture that costs ten searches of a fifth of a second each."""
    limits = searches(monkeypatch)
    first, second = waiting(1, mixed(4, 5)), waiting(2, mixed(1, 4, 5))
    there = (aggregate("a", 3, 2, 5), aggregate("b", 1, total=1))
    asked = ask(seen(first, second, there=there), second.id, second.heads[0])
    assert asked.verdict(asked.decision).unsure == ("a",)
    count = len(limits)
    assert count
    for each in (what.with_quota(asked, "cpu", 9), what.with_freed(asked, {9800: {"cpu": 1}}, "o", {})):
        assert not each.goes()
    assert len(limits) == count
    # Its turn comes before that of the other one: there is more patience left for it.
    assert not what.moved_to_front(asked).goes()
    assert len(limits) > count


def test_what_was_searched_for_with_less_patience_is_searched_for_again() -> None:
    """Catches "nowhere" of one whose turn came late, told of the same one moved to the front."""
    found = Known(packing.Packed(None, sure=False), steps=600, limit=600)
    assert (found.holds(600), found.holds(500), found.holds(601)) == (True, True, False)
    placed = Known(packing.Packed([]), steps=600, limit=1000)
    assert (placed.holds(600), placed.holds(5000), placed.holds(599)) == (True, True, False)
    assert Known(packing.Packed([]), steps=0, limit=1000).holds(0)


def test_a_question_has_the_patience_of_its_place() -> None:
    """Catches an entry that has less of it in an explanation than in a look, since it was put last there."""
    classes = [waiting(number, cpus(1), count=2) for number in (1, 11, 21)]
    asked = ask(seen(*classes, there=(aggregate("a", 1),)), classes[1].id, classes[1].heads[0])
    order = [each.id for each in asked.snapshot.classes]
    assert order == [1001, what.ASKED, 1011, 1021]
    assert [each.id for each in what.unbound(asked).snapshot.classes] == order
