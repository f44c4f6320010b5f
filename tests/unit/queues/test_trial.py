"""What an explanation asks of the decision is what the whole decision says (queues.admission.trial)."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import event, given
from hypothesis import strategies as st

from queues.admission import asked as what
from queues.admission.asked import Asked, ask
from queues.admission.decide import Level, Snapshot, decide
from queues.admission.trial import Trial
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
