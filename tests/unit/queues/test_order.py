"""The hidden key of the order within one Priority: there is always room, and keys stay short."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.order import ALONE, LONGEST, between, dealt

#: A digit is halved five times before the key grows by one.
_PER_DIGIT = 5


@given(st.data())
def test_random_insertions_keep_the_order(data: st.DataObject) -> None:
    """Catches: a key that is not strictly between its neighbours, or ends so that nothing fits before it.

    Starts with a lone entry, an empty group or a dealt one, as the database has them.
    """
    keys = data.draw(st.sampled_from([[], [ALONE], dealt(3), dealt(70)]))[:]
    for place in data.draw(st.lists(st.integers(0, 10**6), max_size=60)):
        at = place % (len(keys) + 1)
        left = keys[at - 1] if at else ""
        right = keys[at] if at < len(keys) else None
        key = between(left, right)
        assert left < key
        assert right is None or key < right
        assert key[-1] != "0"
        assert key.isascii()
        assert key.isalnum()
        keys.insert(at, key)
    encoded = [key.encode() for key in keys]
    assert encoded == sorted(set(encoded))  # byte by byte, as COLLATE "C" does


def _inserted(left: str, right: str | None, side: str, count: int) -> list[str]:
    keys = []
    for _ in range(count):
        key = between(left, right)
        keys.append(key)
        if side == "left":
            right = key
        else:
            left = key
    return keys


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "pair", [("", ALONE), (ALONE, "W"), (ALONE, None), ("", None), ("V", "V1"), ("z", None)]
)
def test_2000_placements_beside_the_same_neighbour(side: str, pair: tuple[str, str | None]) -> None:
    """Catches: keys that grow by a character with every placement, or run out of room."""
    keys = _inserted(*pair, side, 2000)
    assert keys == sorted(keys, reverse=side == "left")
    assert len(set(keys)) == 2000
    assert max(map(len, keys)) <= 2000 / _PER_DIGIT + 3 < LONGEST


def test_between_the_same_two_for_ever() -> None:
    """The worst there is, to and fro: a character in every five or so placements."""
    left, right = "V", "W"
    for number in range(2000):
        key = between(left, right)
        assert left < key < right
        left, right = (key, right) if number % 2 else (left, key)
    assert len(left) <= 2000 / _PER_DIGIT + 3


def test_neighbours_in_the_wrong_order_are_an_error() -> None:
    """Catches: a key made up where none can be."""
    for left, right in (("V", "V"), ("W", "V"), ("V1", "V")):
        with pytest.raises(ValueError, match="is not below"):
            between(left, right)


@pytest.mark.parametrize("count", [0, 1, 2, 14, 15, 61, 62, 63, 960, 10_000])
def test_a_dealt_group_is_in_order_short_and_has_room(count: int) -> None:
    """Catches: two equal keys, an order that is not the list's, keys without room between them."""
    keys = dealt(count)
    assert len(keys) == count
    assert keys == sorted(set(keys))
    assert all(len(key) <= 5 and key[-1] != "0" for key in keys)
    edges: list[Any] = ["", *keys, None]
    assert all(len(between(left, right)) <= 5 for left, right in pairwise(edges))
