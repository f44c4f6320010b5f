"""What each tenant used on which days: runs by family and state, reserved CPU and memory, output.

Added up by the database as attempts, runs and callbacks end (``models.books``), so that a report reads days,
not runs. An attempt counts on the day (UTC) of its end. Must not import HTTP or services.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Final

from django.db import connection

from workers.tenants import limits
from workers.vocabulary.states import FINAL

#: Longest report in days.
LONGEST_D: Final = 400


@dataclass(frozen=True)
class FamilyUsage:
    """A tenant's use by one family in the days asked about."""

    tenant: str
    family: str
    #: Final state -> how many runs reached it.
    runs: dict[str, int]
    attempts: int
    cpu_s: float
    mem_mb_s: int
    log_bytes: int
    callbacks_delivered: int = 0
    callbacks_dead: int = 0


def report(tenant_id: int | None, first: date, last: date) -> list[FamilyUsage]:
    """Both days included; None = every tenant. By tenant and family, those with anything only."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT t.name, u.family, jsonb_object_agg(u.state, u.runs)::text,
                   sum(u.attempts)::bigint, sum(u.cpu_ms)::bigint, sum(u.mem_mb_s)::bigint,
                   sum(u.log_bytes)::bigint, sum(u.delivered)::bigint, sum(u.dead)::bigint
               FROM (SELECT tenant_id, family, state, sum(runs)::bigint AS runs, sum(attempts) AS attempts,
                         sum(cpu_ms) AS cpu_ms, sum(mem_mb_s) AS mem_mb_s, sum(log_bytes) AS log_bytes,
                         sum(callbacks_delivered) AS delivered, sum(callbacks_dead) AS dead
                     FROM workers_usageday
                     WHERE day BETWEEN %s AND %s AND (%s::bigint IS NULL OR tenant_id = %s)
                     GROUP BY tenant_id, family, state) u
               JOIN workers_tenant t ON t.id = u.tenant_id
               GROUP BY t.name, u.family ORDER BY t.name, u.family""",
            [first, last, tenant_id, tenant_id],
        )
        return [
            FamilyUsage(
                tenant=row[0],
                family=row[1],
                runs={state: json.loads(row[2] or "{}").get(state, 0) for state in sorted(FINAL)},
                attempts=row[3],
                cpu_s=row[4] / 1000,
                mem_mb_s=row[5],
                log_bytes=row[6],
                callbacks_delivered=row[7],
                callbacks_dead=row[8],
            )
            for row in cursor.fetchall()
        ]


@dataclass(frozen=True)
class Standing:
    """What a tenant has now and may have at most; 0 = no limit."""

    waiting: int
    running: int
    limits: limits.Limits


def standing(tenant_id: int) -> Standing:
    """How much of its limits a tenant has in use."""
    with connection.cursor() as cursor:
        count = limits.waiting(cursor, tenant_id)
        cursor.execute(
            "SELECT count(*) FROM workers_run WHERE state = 'RUNNING' AND tenant_id = %s", [tenant_id]
        )
        return Standing(count, int(cursor.fetchone()[0]), limits.of(tenant_id))
