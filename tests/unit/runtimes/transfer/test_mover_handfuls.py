"""Which orders a mover's thread takes at once."""

from __future__ import annotations

from workers.runtimes.transfer.mover.batch import Shared
from workers.runtimes.transfer.mover.bounds import SMALL
from workers.vocabulary.transfers.orders import Order

_SWEPT = Order(n=0, act="COPY", src="/a", dst="/b", size=1)


def _copy(n: int, size: int = 1, act: str = "COPY") -> Order:
    return Order(n=n, act=act, src="/a", dst="/b", size=size)


def _taken(orders: list[Order], most: int = 3) -> list[list[int]]:
    shared = Shared(iter([_SWEPT, *orders]), 1)
    assert shared.some(most) == [(_SWEPT, True)]
    found = []
    while some := shared.some(most):
        assert not any(sweeping for _, sweeping in some)
        found.append([order.n for order, _ in some])
    return found


def test_small_ones_go_together_others_alone() -> None:
    large, unknown, folder = _copy(3, SMALL + 1), _copy(4, -1), _copy(5, act="MKDIR")
    assert _taken([_copy(1), _copy(2), large, unknown, folder, _copy(6, SMALL), _copy(7, 0)]) == [
        [1, 2], [3], [4], [5], [6, 7],
    ]  # fmt: skip


def test_no_more_than_asked_for() -> None:
    assert _taken([_copy(n) for n in range(1, 8)]) == [[1, 2, 3], [4, 5, 6], [7]]
    assert _taken([_copy(n) for n in range(1, 4)], 1) == [[1], [2], [3]]
    assert _taken([]) == []
