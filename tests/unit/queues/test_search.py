"""The exact search: all that exists is found, what does not exist is proved, and where it ends it says so."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queues.admission.packing import pack
from queues.admission.search import LEAST_STEPS, STEPS, TOGETHER, Found, Patience, search
from queues.needs import Need
from tests.unit.queues.deciding import most_placed, unknown_fit

Vector = tuple[int, ...]


def _need(sizes: Sequence[Vector]) -> Need:
    named = [tuple((f"r{at}", value) for at, value in enumerate(size) if value) for size in sizes]
    return tuple(sorted((count, size) for size, count in Counter(named).items()))


def _free(hosts: Sequence[Vector]) -> list[dict[str, int]]:
    return [{f"r{at}": value for at, value in enumerate(host)} for host in hosts]


def _search(need: Need, hosts: Sequence[Vector], steps: int = STEPS) -> Found:
    """Not what is remembered of it."""
    names = tuple(sorted({name for _, size in need for name, _ in size}))
    return search.__wrapped__(
        need, names, tuple(tuple(host[name] for name in names) for host in _free(hosts)), steps
    )


def _check(need: Need, hosts: list[Vector], found: Found) -> None:
    assert found.where is not None
    assert found.sure
    left = _free(hosts)
    given_: Counter[int] = Counter()
    for host, count, size in found.where:
        assert count > 0
        given_[size] += count
        for name, value in need[size][1]:
            left[host][name] -= count * value
    assert given_ == Counter({number: count for number, (count, _) in enumerate(need)})
    assert all(amount >= 0 for host in left for amount in host.values())


_amount, _much = st.integers(0, 5), st.integers(0, 12)
_sizes = st.lists(st.tuples(_amount, _amount).filter(any), min_size=2, max_size=8)
_hosts = st.lists(st.tuples(_much, _much), max_size=4)


@settings(max_examples=300, deadline=None)
@given(_sizes, _hosts)
@example([(3, 0)] * 3 + [(2, 0)] * 3, [(7, 0), (8, 0)])
def test_it_agrees_with_a_trial_of_all_placements(sizes: list[Vector], hosts: list[Vector]) -> None:
    """Catches: a combination left out, a rest wrongly remembered as failed, a bound too tight."""
    need = _need(sizes)
    best = most_placed(need, _free(hosts))
    found = _search(need, hosts)
    assert found.sure
    assert (found.where is not None) == (best == len(sizes))
    if found.where is not None:
        _check(need, hosts, found)


def _cut(
    chance: random.Random, sizes: list[Vector], hosts: int, most: int, left_out: float, resources: int
) -> tuple[Need, list[Vector]]:
    """Hosts that are made of pieces, so that all of these have a place; a part of them is left out."""
    pieces: list[Vector] = []
    made: list[Vector] = []
    for _ in range(hosts):
        here = [
            chance.choice(sizes) if sizes else tuple(chance.randint(1, 16) for _ in range(resources))
            for _ in range(chance.randint(1, most))
        ]
        pieces += here
        made.append(tuple(map(sum, zip(*here, strict=True))))
    chance.shuffle(pieces)
    return _need(pieces[int(len(pieces) * left_out) :]), made


@pytest.mark.parametrize(
    ("flavours", "hosts", "most", "left_out", "resources"),
    [(3, 16, 7, 0.125, 2), (3, 16, 7, 0.0, 2), (5, 16, 6, 0.05, 3), (8, 10, 6, 0.1, 3), (0, 6, 5, 0.0, 3)],
)
def test_tight_mixtures_are_found(
    flavours: int, hosts: int, most: int, left_out: float, resources: int
) -> None:
    """Catches a search that is no better than placing the larger ones first, which misses most of these.

    Hosts that differ, several resources, up to nothing to spare; 0 flavours: hardly two instances are alike.
    """
    chance, missed = random.Random(11), 0
    for _ in range(25):
        sizes: list[Vector] = [tuple(chance.randint(1, 8) for _ in range(resources)) for _ in range(flavours)]
        need, there = _cut(chance, sizes, hosts, most, left_out, resources)
        packed = pack(need, _free(there), Patience())
        missed += packed.placed is None
        assert packed.placed is not None or not packed.sure
    assert missed <= 1


def test_equal_hosts_and_instances_do_not_multiply_the_work() -> None:
    """Catches a search through all that is the same: even sizes leave one of 11 unused, and need six more."""
    found = _search(_need([(2,)] * 40 + [(4,)] * 19), [(11,)] * 15)
    assert (found.where, found.sure) == (None, True)
    assert found.steps < 1000


def test_where_it_ends_it_does_not_say_that_there_is_no_place() -> None:
    """Catches "impossible" where only the steps were over; and steps beyond the limit."""
    chance = random.Random(3)
    need, hosts = _cut(chance, [], 12, 6, 0.0, 3)
    found = _search(need, hosts, steps=400)
    assert (found.where, found.sure) == (None, False)
    assert 400 <= found.steps < 500
    assert _search(need, hosts, steps=400) == found  # whatever the machine does


def test_a_request_of_very_many_sizes_is_not_searched_for() -> None:
    need, hosts = unknown_fit()
    packed = pack(need, hosts, Patience())
    assert (packed.placed, packed.sure) == (None, False)


def test_many_hosts_do_not_exhaust_the_stack() -> None:
    """Catches a recursion from host to host."""
    need = _need([(5, 1)] * 400 + [(4, 3)] * 390)
    assert _search(need, [(9, 4)] * 400).where is not None


def test_patience_ends_but_for_a_little() -> None:
    """Catches 200 hopeless mixtures that keep the type's lock for minutes, and one without any try."""
    patience, given_ = Patience(), []
    for _ in range(200):
        given_.append(patience.share())
        patience.spend(given_[-1])
    assert given_[0] == STEPS
    assert given_ == sorted(given_, reverse=True)
    assert given_[-1] == LEAST_STEPS
    assert sum(given_) <= TOGETHER + 200 * LEAST_STEPS
