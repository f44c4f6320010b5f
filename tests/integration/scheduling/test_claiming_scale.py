"""What a look costs when a hundred thousand runs wait: it must follow the number of shapes, not of runs.

Proved by the query plans and by counting what they touch; how long a look takes is mark 18.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection

from tests.integration.engine_rows import World, assert_books_balance
from workers.models import Node, Shape, Tenant
from workers.scheduling import claiming
from workers.scheduling.claiming import Memory

pytestmark = pytest.mark.django_db

#: Runs of each shape, spread over time: ended ones first, as in a table with a history, then pending ones.
_FILL = """
    INSERT INTO workers_run (tenant_id, family, kind, name, owner_id, shape_id, spec, priority, rank,
        retries_left, grace_s, expires_at, state, finished_at)
    SELECT s.tenant_id, 'tasks', 'process', 'scale', '', s.id, '{"kind": "process", "argv": ["true"]}', 5,
        (extract(epoch FROM now()) * 1000000)::bigint + n * 1000, 0, 10, now() + interval '1 day',
        CASE WHEN n > %(ended)s THEN 'PENDING' ELSE 'SUCCEEDED' END,
        CASE WHEN n > %(ended)s THEN NULL ELSE now() END
    FROM generate_series(1, %(ended)s + %(pending)s) n, workers_shape s ORDER BY n, s.id
"""


def fill(tenants: int, shapes: int, runs: int) -> Node:
    """``runs`` pending and as many ended runs of that many shapes and tenants, and one large node."""
    world = World()
    Shape.objects.all().delete()
    for number in range(tenants):
        tenant, _ = Tenant.objects.get_or_create(
            name=f"t{number}", defaults={"trusted_with_worker_account": True}
        )
        Shape.objects.bulk_create(
            Shape(tenant=tenant, kind="process", cpu_m=100, mem_mb=16 + item)
            for item in range(shapes // tenants)
        )
    with connection.cursor() as cursor:
        cursor.execute(_FILL, {"ended": runs // shapes, "pending": runs // shapes})
        cursor.execute("ANALYZE workers_run, workers_shape")
    return world.node(cpu_m=10_000_000, mem_mb=100_000_000, slots=1_000_000)


def plan(sql: str, params: list[Any] | None = None) -> list[dict[str, Any]]:
    """Every node of the executed plan of a query."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
        found = cursor.fetchone()[0]
    todo = [(json.loads(found) if isinstance(found, str) else found)[0]["Plan"]]
    nodes = []
    while todo:
        node = todo.pop()
        nodes.append(node)
        todo += node.get("Plans", ())
    return nodes


def assert_only_the_index_is_read(nodes: list[dict[str, Any]], most: int) -> None:
    """Runs are found through the partial index of claimable ones, and no more of them than that."""
    scans = [node for node in nodes if node.get("Relation Name") == "workers_run"]
    assert scans
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {"run_claimable"}
    for scan in scans:
        assert scan["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan")
        assert scan["Actual Rows"] * scan["Actual Loops"] <= most


@pytest.mark.parametrize(
    ("shapes", "runs"), [(60, 6000), (600, 6000), pytest.param(1000, 100_000, marks=pytest.mark.long)]
)
def test_a_look_reads_heads_not_queues(shapes: int, runs: int) -> None:
    """Catches: a plan that sorts or scans what waits; it would cost seconds at a hundred thousand."""
    fill(3, shapes, runs)
    assert_only_the_index_is_read(plan(claiming._HEADS), shapes + 1)
    wanted = list(Shape.objects.values_list("id", flat=True)[:60])
    assert_only_the_index_is_read(plan(claiming._QUEUES, [wanted, 16]), 60 * 16)


def test_a_look_serves_every_tenant_of_a_large_backlog() -> None:
    """Catches: a limit on shapes that leaves a tenant out."""
    node = fill(3, 600, 6000)
    claimed = claiming.look(node.pk, 1, Memory(), 48).claimed
    served = {item.tenant for item in claimed}
    assert (len(claimed), served) == (48, {"t0", "t1", "t2"})
    counts = [sum(item.tenant == tenant for item in claimed) for tenant in served]
    assert max(counts) - min(counts) <= 3
    assert_books_balance()
