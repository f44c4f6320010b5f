"""Which runs a node takes next: one look = lock the node's row, read the heads of the queues, choose, claim.

Cost grows with the number of distinct shapes that wait, not with the number of runs: heads are found by
skipping through the partial index (shape, rank, id) of claimable runs. Must not import services or runtimes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Sum

from workers.models import Node
from workers.runs import transitions
from workers.scheduling.obstacles import NodeView, ShapeView, obstacles
from workers.scheduling.passed_over import reserve, reserved_elsewhere
from workers.scheduling.placement import Candidate, Choice, Usage, choose
from workers.scheduling.shapes import load_shapes, trusted_now
from workers.tenants import limits
from workers.vocabulary.leases import ClaimedRun, Lease

#: Most shapes that one look takes candidates from, and most candidates of one shape.
_SHAPES_PER_LOOK = 64
#: (when they were added up, slots of all nodes); a limit beyond them costs nothing.
_slots: tuple[float, int] = (float("-inf"), 0)
_SLOTS_S = 5.0


class Superseded(Exception):
    """Another worker holds this node's name now: stop, write nothing."""


def check_ours(row: tuple[int, int] | None, incarnation: int, beats: int) -> None:
    """Is the node's row, (incarnation, heartbeats), the one that this worker knows? Raises Superseded."""
    if row is None or row < (incarnation, beats):
        raise Superseded(
            "the database knows less of this node than the node itself: it was restored from a backup"
        )
    if row[0] != incarnation:
        raise Superseded("this node has been taken over by another worker")


@dataclass
class Memory:
    """What an agent remembers between looks: since when a head was passed over (monotonic seconds)."""

    passed_over: dict[int, float] = field(default_factory=dict)
    shapes: dict[int, ShapeView] = field(default_factory=dict)

    def overdue(self, now: float) -> dict[int, float]:
        """Heads that were passed over for too long, with since when."""
        return {
            run_id: since
            for run_id, since in self.passed_over.items()
            if now - since >= settings.GANTRY_RESERVE_AFTER_S
        }

    def keep(self, heads: set[int], choice: Choice, now: float) -> None:
        """What is passed over from now on; what was taken, or is no head any more, is forgotten."""
        left = heads - set(choice.take)
        self.passed_over = {run_id: since for run_id, since in self.passed_over.items() if run_id in left}
        for run_id in choice.passed_over:
            self.passed_over.setdefault(run_id, now)


@dataclass(frozen=True)
class Look:
    """What one look found: runs claimed, leases to stop because of a cancel, whether more may be waiting."""

    claimed: list[ClaimedRun]
    cancels: list[tuple[Lease, bool]]
    more: bool
    mode: str
    #: Open questions of the API (NodeRequest ids).
    questions: list[int]


_NODE = """
    SELECT n.id, n.name, n.mode, n.incarnation, n.trouble, n.runtimes, n.attributes::text, n.isolates_users,
        n.cpu_m_total, n.cpu_m_total - n.cpu_m_used, n.mem_mb_total, n.mem_mb_total - n.mem_mb_used,
        n.slots - n.slots_used, n.reserved_for_id, (extract(epoch FROM now()) * 1000000)::bigint,
        (SELECT array_agg(ARRAY[r.id, r.attempt, r.lease_epoch, r.cancelled_by_operator::int])
         FROM workers_run r
         WHERE r.node_id = n.id AND r.state = 'RUNNING' AND r.cancel_requested_at IS NOT NULL),
        (SELECT array_agg(q.id) FROM workers_noderequest q
         WHERE q.node_id = n.id AND q.answered_at IS NULL),
        n.troubles::text, n.beats
    FROM workers_node n WHERE n.id = %s FOR UPDATE OF n
"""

_HEADS = """
    WITH RECURSIVE heads AS (
        -- the head of the first shape that waits
        (SELECT shape_id, rank, id FROM workers_run WHERE state = 'PENDING' AND not_before IS NULL
         ORDER BY shape_id, rank, id LIMIT 1)
        UNION ALL
        -- from there the head of the next shape: one jump through the index each
        SELECT n.shape_id, n.rank, n.id FROM heads h CROSS JOIN LATERAL (
            SELECT shape_id, rank, id FROM workers_run
            WHERE state = 'PENDING' AND not_before IS NULL AND shape_id > h.shape_id
            ORDER BY shape_id, rank, id LIMIT 1) n
    ) SELECT shape_id, rank, id FROM heads
"""

_QUEUES = """
    SELECT s.shape_id, r.id, r.rank FROM unnest(%s::bigint[]) AS s(shape_id) CROSS JOIN LATERAL (
        SELECT id, rank FROM workers_run
        WHERE state = 'PENDING' AND not_before IS NULL AND shape_id = s.shape_id
        ORDER BY rank, id LIMIT %s) r ORDER BY s.shape_id, r.rank, r.id
"""

_USAGE = """
    SELECT r.tenant_id, sum(s.cpu_m)::bigint, sum(s.mem_mb)::bigint, count(*) FROM workers_run r
    JOIN workers_shape s ON s.id = r.shape_id WHERE r.state = 'RUNNING' GROUP BY r.tenant_id
"""


def look(node_id: int, incarnation: int, memory: Memory, limit: int, beats: int = 0) -> Look:
    """Claim up to ``limit`` runs for the node. Raises Superseded when the incarnation is not ours.

    ``beats``: heartbeats that the database has certainly taken; one that knows fewer was set back.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_NODE, [node_id])
        row = cursor.fetchone()
        check_ours(None if row is None else (row[3], row[18]), incarnation, beats)
        node, now_us = _node_view(row), row[14]
        cancels = [(Lease(item[0], item[1], item[2]), bool(item[3])) for item in row[15] or ()]
        if node.mode != "ready" or node.trouble or node.slots_free < 1 or limit < 1:
            return Look([], cancels, False, node.mode, row[16] or [])
        claimed, more = _claim(cursor, node, now_us, memory, min(limit, node.slots_free))
        return Look(claimed, cancels, more, node.mode, row[16] or [])


def _node_view(row: tuple[Any, ...]) -> NodeView:
    return NodeView(
        id=row[0],
        name=row[1],
        mode=row[2],
        silent_s=None,
        trouble=row[4],
        runtimes=frozenset(row[5]),
        attributes=json.loads(row[6]),
        isolates_users=row[7],
        cpu_m=row[8],
        cpu_m_free=row[9],
        mem_mb=row[10],
        mem_mb_free=row[11],
        slots_free=row[12],
        reserved_for=row[13],
        troubles=json.loads(row[17]),
    )


def _claim(
    cursor: CursorWrapper, node: NodeView, now_us: int, memory: Memory, limit: int
) -> tuple[list[ClaimedRun], bool]:
    cursor.execute(_HEADS)
    heads: list[tuple[int, int, int]] = cursor.fetchall()
    if not heads:
        memory.passed_over.clear()
    node, wanted = _wanted(cursor, node, memory, heads)
    if not wanted:
        if node.reserved_for is not None:
            reserve(cursor, node, None)
        return [], False
    queues = _queues(cursor, wanted, limit)
    quotas, usage = _held(cursor, {shape.tenant_id for shape in wanted})
    now = time.monotonic()
    overdue = memory.overdue(now)
    choice = choose(
        node,
        queues,
        usage,
        now_us=now_us,
        aging_us=settings.GANTRY_AGING_S * 1_000_000,
        limit=limit,
        overdue=overdue,
        reserved_elsewhere=reserved_elsewhere(cursor, node, overdue),
        quotas=quotas,
    )
    claimed = transitions.claim(cursor, node.id, node.name, choice.take) if choice.take else []
    if choice.reserve != node.reserved_for:
        reserve(cursor, node, choice.reserve)
    memory.keep({head[2] for head in heads}, choice, now)
    return claimed, len(choice.take) >= limit


def _wanted(
    cursor: CursorWrapper, node: NodeView, memory: Memory, heads: list[tuple[int, int, int]]
) -> tuple[NodeView, list[ShapeView]]:
    """The shapes to take candidates from, and the node, with its host ports if any of the heads asks for one.

    Shapes that this node could ever hold, in the order of placement; a few of every tenant.
    """
    load_shapes(memory.shapes, [head[0] for head in heads])
    if any(memory.shapes[head[0]].host_ports for head in heads):
        node = replace(node, taken_ports=_taken_ports(cursor, node))
    asked = [(memory.shapes[shape_id], rank, run_id) for shape_id, rank, run_id in heads]
    if not node.isolates_users:
        asked = [(trusted_now(shape), rank, run_id) for shape, rank, run_id in asked]
    usable = [
        (shape, rank, run_id)
        for shape, rank, run_id in asked
        if shape.kind not in node.troubles and all(item.passing for item in obstacles(shape, node))
    ]
    return node, _first_shapes(usable, node, memory)


def _queues(
    cursor: CursorWrapper, wanted: list[ShapeView], limit: int
) -> list[tuple[ShapeView, list[Candidate]]]:
    """Each shape with its first candidates."""
    queues: dict[int, list[Candidate]] = {shape.id: [] for shape in wanted}
    cursor.execute(_QUEUES, [list(queues), limit])
    for shape_id, run_id, rank in cursor.fetchall():
        queues[shape_id].append(Candidate(run_id, rank))
    return [(shape, queues[shape.id]) for shape in wanted]


def _held(cursor: CursorWrapper, tenants: set[int]) -> tuple[dict[int, int], dict[int, Usage]]:
    """Quotas of these tenants, and what every tenant's running work holds: read where it decides anything."""
    quotas = binding_quotas(tenants)
    if quotas:
        limits.lock_running(cursor, quotas)
    if not quotas and len(tenants) < 2:
        return quotas, {}
    cursor.execute(_USAGE)
    return quotas, {row[0]: Usage(row[1], row[2], row[3]) for row in cursor.fetchall()}


def binding_quotas(tenant_ids: Iterable[int]) -> dict[int, int]:
    """Tenant -> how many runs it may run at once, for those whom all nodes together could take beyond it."""
    global _slots
    now = time.monotonic()
    if now - _slots[0] > _SLOTS_S:
        found = Node.objects.exclude(mode=Node.Mode.REMOVED).aggregate(all=Sum("slots"))["all"]
        _slots = (now, found or 0)
    quotas = {tenant_id: item.running_runs for tenant_id, item in limits.of_many(tenant_ids).items()}
    return {tenant_id: quota for tenant_id, quota in quotas.items() if 0 < quota < _slots[1]}


def _taken_ports(cursor: CursorWrapper, node: NodeView) -> dict[str, int]:
    """After the node's lock, so that whatever was claimed before is seen."""
    cursor.execute(
        """SELECT h.port, r.tenant_id FROM workers_hostport h JOIN workers_run r ON r.id = h.run_id
           WHERE h.node_id = %s""",
        [node.id],
    )
    return dict(cursor.fetchall())


def _first_shapes(
    usable: list[tuple[ShapeView, int, int]], node: NodeView, memory: Memory
) -> list[ShapeView]:
    """At most _SHAPES_PER_LOOK: reserved and overdue ones, then in turn each tenant's oldest that fits now
    and its oldest that does not, so that it is noticed when that one is passed over.
    """
    if len(usable) <= _SHAPES_PER_LOOK:
        return [shape for shape, _, _ in usable]
    turn: dict[tuple[int, bool], int] = {}
    ordered = []
    for shape, rank, run_id in sorted(usable, key=lambda item: item[1]):
        line = (shape.tenant_id, not obstacles(shape, node))
        turn[line] = turn.get(line, 0) + 1
        special = run_id == node.reserved_for or run_id in memory.passed_over
        ordered.append((0 if special else turn[line], rank, shape))
    ordered.sort(key=lambda item: (item[0], item[1]))
    return [shape for _, _, shape in ordered[:_SHAPES_PER_LOOK]]


def promote(limit: int = 500) -> int:
    """Make runs claimable whose time of the next try has come; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE workers_run SET not_before = NULL WHERE id IN (
                   SELECT id FROM workers_run WHERE state = 'PENDING' AND not_before <= now()
                   ORDER BY not_before LIMIT %s FOR UPDATE SKIP LOCKED)""",
            [limit],
        )
        return int(cursor.rowcount)
