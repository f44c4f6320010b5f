"""Host ports in placement: never twice, no reservation of a whole node for a port, an honest explanation."""

from __future__ import annotations

from typing import Any

from tests.unit.scheduling.placing import a_node, a_shape
from workers.scheduling.obstacles import NodeView, ShapeView, obstacles
from workers.scheduling.placement import Candidate, Choice, choose

NOW_US = 1_000_000_000


def shape(number: int, *ports: str, **given: Any) -> ShapeView:
    return a_shape(number, **{"cpu_m": 1000, "mem_mb": 100, **given, "host_ports": frozenset(ports)})


def node(**given: Any) -> NodeView:
    return a_node(**{"cpu_m": 4000, "cpu_m_free": 4000, "mem_mb": 4000, "mem_mb_free": 4000, **given})


def chosen(where: NodeView, *queues: tuple[ShapeView, list[int]], **given: Any) -> Choice:
    asked: dict[str, Any] = {"now_us": NOW_US, "aging_us": 300_000_000, "limit": 16, "overdue": {}, **given}
    waiting = [(item, [Candidate(run, NOW_US + run) for run in runs]) for item, runs in queues]
    return choose(where, waiting, {}, **asked)


def test_one_look_gives_a_port_once() -> None:
    """Within a shape and between shapes that share one of their ports."""
    assert chosen(node(), (shape(1, "80/tcp"), [1, 2, 3])).take == [1]
    found = chosen(
        node(),
        (shape(1, "80/tcp", "81/tcp"), [1]),
        (shape(2, "81/tcp"), [2]),
        (shape(3, "81/udp"), [3]),
        (shape(4), [4]),
    )
    assert sorted(found.take) == [1, 3, 4]
    assert found.passed_over == set()


def test_a_port_that_is_taken() -> None:
    """It waits, others go on, and however long that lasts the node is not kept for it."""
    busy = node(taken_ports={"80/tcp": 1})
    found = chosen(busy, (shape(1, "80/tcp"), [1]), (shape(2), [2]))
    assert (found.take, found.passed_over, found.reserve) == ([2], set(), None)
    found = chosen(busy, (shape(1, "80/tcp"), [1]), (shape(2), [2]), overdue={1: 5.0})
    assert (found.take, found.reserve) == ([2], None)
    kept = node(taken_ports={"80/tcp": 1}, reserved_for=1)
    assert chosen(kept, (shape(1, "80/tcp"), [1]), (shape(2), [2])).reserve is None


def test_overdue_runs_keep_their_ports() -> None:
    """Who needs two ports would wait for ever if others took them by turns."""
    both, one, other = shape(1, "80/tcp", "81/tcp"), shape(2, "80/tcp"), shape(3, "81/tcp")
    busy = node(taken_ports={"80/tcp": 1})
    found = chosen(busy, (both, [5]), (one, [6]), (other, [7]))
    assert (found.take, found.passed_over) == ([7], {5})
    found = chosen(busy, (both, [5]), (one, [6]), (other, [7]), overdue={5: 1.0})
    assert (found.take, found.reserve) == ([], None)
    assert chosen(node(), (both, [5]), (one, [6]), (other, [7]), overdue={5: 1.0}).take == [5]


def test_a_free_port_and_no_room() -> None:
    """Then it is passed over and reserves the node like any other run."""
    full = node(cpu_m_free=500)
    wanting = (shape(1, "80/tcp"), [1])
    found = chosen(full, wanting, (shape(2, cpu_m=100), [2]))
    assert (found.take, found.passed_over) == ([2], {1})
    found = chosen(full, wanting, (shape(2, cpu_m=100), [2]), overdue={1: 1.0})
    assert (found.take, found.reserve) == ([], 1)


def test_obstacles_name_the_port_and_whose_it_is() -> None:
    busy = node(name="n1", taken_ports={"80/tcp": 1, "81/tcp": 2, "82/tcp": 2})
    mine, theirs = obstacles(shape(1, "80/tcp", "81/tcp", "83/tcp", tenant_id=1), busy)
    assert mine.message == "host port 80/tcp is taken on node n1 by another of your runs"
    assert theirs.message == "host port 81/tcp is taken on node n1 by another tenant's run"
    assert {mine.code, theirs.code} == {"host_port"}
    assert mine.passing
    assert mine.remedy
    assert obstacles(shape(1, "83/tcp"), busy) == []
