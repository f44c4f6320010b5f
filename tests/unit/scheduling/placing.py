"""A node, what waits and what tenants hold, made up for properties of placement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from workers.scheduling.obstacles import NodeView, ShapeView
from workers.scheduling.placement import Candidate, Choice, Usage, choose

NOW_US = 1_000_000_000
AGING_US = 300_000_000
#: Ranks at or below this are urgent: high priority, or normal work that has waited for the aging time.
URGENT = NOW_US - AGING_US

#: Other examples every day (tests.support.seeds): a failure in CI is one that a person can repeat.
settings.register_profile("placement", deadline=None, database=None, max_examples=120)
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
