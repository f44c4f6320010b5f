"""Shapes: the row of what a run asks of a node, found or made, and how placement sees it.

They never change, so what was read once is remembered. Must not import claiming or services.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Final

from django.db import connection

from workers.models import Shape
from workers.scheduling.obstacles import ShapeView
from workers.tenants import policy
from workers.vocabulary.errors import Conflict

#: (tenant, kind, cpu_m, mem_mb, constraints, host ports) -> (shape id, monotonic time); shapes never change.
ShapeKey = tuple[int, str, int, int, str, tuple[str, ...]]
_shapes: dict[ShapeKey, tuple[int, float]] = {}
_SHAPES_MAX = 10_000
#: The policy that lets commands run where they are separated by their users only.
UNISOLATED: Final = "commands_unisolated"
_SHAPE_TTL_S = 600.0


def shape_id_of(key: ShapeKey) -> int:
    """The id of the shape, found or made; remembered for ten minutes."""
    known = _shapes.get(key)
    now = time.monotonic()
    if known is not None and now - known[1] < _SHAPE_TTL_S:
        return known[0]
    tenant_id, kind, cpu_m, mem_mb, constraints, host_ports = key
    shape, _ = Shape.objects.get_or_create(
        tenant_id=tenant_id,
        kind=kind,
        cpu_m=cpu_m,
        mem_mb=mem_mb,
        constraints=json.loads(constraints),
        host_ports=list(host_ports),
    )
    if not connection.in_atomic_block:  # one that may still be rolled back is not remembered
        if len(_shapes) >= _SHAPES_MAX:
            _shapes.clear()
        _shapes[key] = (shape.pk, now)
    return shape.pk


def kept_shape_id(key: ShapeKey) -> int:
    """The shape's id, kept from retention until the transaction ends; nobody else waits for that lock."""
    for _ in range(2):
        shape_id = shape_id_of(key)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM workers_shape WHERE id = %s FOR KEY SHARE", [shape_id])
            if cursor.fetchone() is not None:
                return shape_id
        forget_shape(key)
    raise Conflict("the shape of the runs was pruned twice: send the request again")


def forget_shape(key: ShapeKey) -> None:
    """Look it up again the next time: it may have been pruned."""
    _shapes.pop(key, None)


def load_shapes(known: dict[int, ShapeView], shape_ids: list[int]) -> None:
    """Read shapes not yet known into ``known``; they never change, so they are read once."""
    missing = [shape_id for shape_id in shape_ids if shape_id not in known]
    if not missing:
        return
    if len(known) > 50_000:
        known.clear()
        missing = shape_ids
    for shape in Shape.objects.filter(pk__in=missing).select_related("tenant"):
        known[shape.pk] = shape_view(shape)


def shape_view(shape: Shape) -> ShapeView:
    """A shape's row as placement sees it."""
    return ShapeView(
        id=shape.pk,
        tenant_id=shape.tenant_id,
        kind=shape.kind,
        cpu_m=shape.cpu_m,
        mem_mb=shape.mem_mb,
        constraints=shape.constraints,
        trusted=shape.tenant.trusted_with_worker_account,
        host_ports=frozenset(shape.host_ports),
        unisolated=UNISOLATED in policy.allowed(shape.tenant.policy),
    )


def trusted_now(shape: ShapeView) -> ShapeView:
    """A remembered shape with what its tenant may as it is now, at most 5 s old."""
    rules = policy.of(shape.tenant_id)
    return replace(shape, trusted=rules.worker_account, unisolated=UNISOLATED in rules.allowed)
