"""Everything ends: deletes what is older than it is kept, in bounded batches.

Safe to run in several processes at once (SKIP LOCKED) and to interrupt at any time. Called by the reconciler
every few seconds, so a round without work costs a few milliseconds, and by `manage.py prune`. Must not
import services, claiming, agents or runtimes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final, cast

from django.conf import settings
from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models.functions import Now

from workers.models import Run

#: Contract, "Idempotency": a key is remembered for 24 hours.
IDEMPOTENCY_H: Final = 24
#: Nobody waits for the answer to a question that long.
REQUEST_MIN: Final = 60
#: A shape without any run is kept this long, so that submitting the same thing again finds it.
SHAPE_H: Final = 24
#: What is known of a receiver of callbacks is kept this long after the last delivery.
RECEIVER_D: Final = 7
#: Chunks of logs deleted for each run of the limit: a chunk has up to 256 KiB.
_CHUNKS: Final = 4

#: Shapes are looked at in turns; this one was the last.
_last_shape = 0


def prune_once(limit: int) -> dict[str, int]:
    """One bounded round: at most ``limit`` rows of each kind (four times as many chunks of logs).

    Returns {what: how many were deleted}. Runs are kept GANTRY_KEEP_RUNS_D days after their end, their output
    GANTRY_KEEP_LOGS_D days; 0 means for ever. Waiting and running runs keep everything.
    """
    global _last_shape
    shapes, _last_shape = _prune_shapes(_last_shape, limit)
    return {
        "runs": _prune_runs(limit),
        "logs": _prune_logs(limit),
        "idempotency_keys": _prune_old(
            "workers_idempotencykey", "created_at", f"{IDEMPOTENCY_H} hours", limit
        ),
        "node_requests": _prune_old("workers_noderequest", "id", f"{REQUEST_MIN} minutes", limit),
        "shapes": shapes,
        "receivers": _prune_receivers(limit),
    }


def prune_all(limit: int = 500) -> Iterator[dict[str, int]]:
    """Rounds until nothing is left to delete; yields what each deleted."""
    busy = True
    while busy:
        counts = prune_once(limit)
        busy = any(count for what, count in counts.items() if what != "shapes")
        yield counts
    last, first = 0, True
    while last or first:
        shapes, last = _prune_shapes(last, limit)
        first = False
        yield {"shapes": shapes}


def _prune_runs(limit: int) -> int:
    """Ended runs with their attempts, events and whatever a family has attached to them."""
    if settings.GANTRY_KEEP_RUNS_D <= 0:
        return 0
    related = cast("tuple[Any, ...]", Run._meta.related_objects)
    relations = [relation for relation in related if relation.field.db_constraint]
    old = Run.objects.filter(finished_at__lt=Now() - timedelta(days=settings.GANTRY_KEEP_RUNS_D))
    for relation in relations:
        if relation.on_delete in (models.PROTECT, models.RESTRICT):
            # A family still needs this run: it goes when the family has let go of it.
            users = relation.related_model._base_manager.filter(
                **{relation.field.name: models.OuterRef("pk")}
            )
            old = old.exclude(models.Exists(users))
    with transaction.atomic():
        ids = list(
            old.order_by("finished_at")
            .select_for_update(skip_locked=True)
            .values_list("pk", flat=True)[:limit]
        )
        if not ids:
            return 0
        for relation in relations:
            rows = relation.related_model._base_manager.filter(**{f"{relation.field.name}__in": ids})
            if relation.on_delete is models.CASCADE:
                rows.delete()
            elif relation.on_delete is models.SET_NULL:
                rows.update(**{relation.field.name: None})
        # Not by the ORM: it would search all runs for those that repeat one of these (retry_of).
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM workers_run WHERE id = ANY(%s)", [ids])
            return int(cursor.rowcount)


def _prune_logs(limit: int) -> int:
    """Output of runs that ended long ago, and of runs that are gone."""
    days = min(
        (days for days in (settings.GANTRY_KEEP_LOGS_D, settings.GANTRY_KEEP_RUNS_D) if days > 0), default=0
    )
    if days == 0:
        return 0
    after, left = 0, limit * _CHUNKS
    while left > 0:
        with transaction.atomic(), connection.cursor() as cursor:
            walked = _runs_with_output(cursor, days, after, limit)
            old = [run_id for run_id, is_old, _ in walked if is_old]
            if old:
                cursor.execute(
                    """DELETE FROM workers_logchunk WHERE ctid = ANY(ARRAY(
                           SELECT ctid FROM workers_logchunk WHERE run_id = ANY(%s) LIMIT %s
                           FOR UPDATE SKIP LOCKED))""",
                    [old, left],
                )
                left -= cursor.rowcount
        if len(walked) < limit or walked[-1][2]:
            break
        after = walked[-1][0]
    return limit * _CHUNKS - max(left, 0)


def _runs_with_output(
    cursor: CursorWrapper, days: int, after: int, limit: int
) -> list[tuple[int, bool, bool]]:
    """The next runs that have output, by id: (run id, its output may go, it is too young to go).

    Jumps from run to run in the primary key, so that the number of chunks does not matter, and stops at the
    first run that was submitted too late to have ended long ago: ids follow time closely enough.
    """
    cursor.execute(
        """WITH RECURSIVE walk AS (
               SELECT %(after)s::bigint AS run_id, false AS old, false AS young, 0 AS step
             UNION ALL
               SELECT next.run_id,
                   r.id IS NULL OR coalesce(r.finished_at < now() - %(days)s * interval '1 day', false),
                   coalesce(r.created_at >= now() - %(days)s * interval '1 day', false), w.step + 1
               FROM walk w
               CROSS JOIN LATERAL (SELECT c.run_id FROM workers_logchunk c WHERE c.run_id > w.run_id
                   ORDER BY c.run_id LIMIT 1) next
               LEFT JOIN workers_run r ON r.id = next.run_id
               WHERE w.step < %(limit)s AND NOT w.young)
           SELECT run_id, old, young FROM walk WHERE step > 0 ORDER BY run_id""",
        {"after": after, "limit": limit, "days": days},
    )
    return list(cursor.fetchall())


def _prune_receivers(limit: int) -> int:
    """Receivers of callbacks to which nothing has gone for a long time; they are made again when needed."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """DELETE FROM workers_callbackreceiver WHERE id IN (SELECT id FROM workers_callbackreceiver
                   WHERE used_at < now() - %s * interval '1 day'
                       AND (lease_until IS NULL OR lease_until < now())
                   ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)""",
            [RECEIVER_D, limit],
        )
        return int(cursor.rowcount)


def _prune_old(table: str, order: str, age: str, limit: int) -> int:
    """Rows of a table that were created longer ago than ``age``. The names come from this module only."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""DELETE FROM {table} WHERE id IN (SELECT id FROM {table}
                WHERE created_at < now() - %s::interval ORDER BY {order} LIMIT %s FOR UPDATE SKIP LOCKED)""",  # noqa: S608
            [age, limit],
        )
        return int(cursor.rowcount)


def _prune_shapes(after: int, limit: int) -> tuple[int, int]:
    """Unused ones among the next ``limit`` shapes; returns (deleted, where to go on; 0 after the last)."""
    with transaction.atomic(), connection.cursor() as cursor:
        # LATERAL with LIMIT: one probe of an index for each shape, never a scan of all runs.
        cursor.execute(
            """SELECT s.id, s.old AND used.one IS NULL
               FROM (SELECT id, created_at < now() - %s * interval '1 hour' AS old FROM workers_shape
                   WHERE id > %s ORDER BY id LIMIT %s) s
               LEFT JOIN LATERAL
                   (SELECT 1 AS one FROM workers_run r WHERE r.shape_id = s.id LIMIT 1) used ON true
               ORDER BY s.id""",
            [SHAPE_H, after, limit],
        )
        found = cursor.fetchall()
        deleted = 0
        if unused := [shape_id for shape_id, is_unused in found if is_unused]:
            # A submission that uses one right now holds a lock on it: that one is skipped.
            cursor.execute(
                """DELETE FROM workers_shape WHERE id IN (SELECT id FROM workers_shape s WHERE id = ANY(%s)
                       AND NOT EXISTS (SELECT 1 FROM workers_run r WHERE r.shape_id = s.id)
                       FOR UPDATE SKIP LOCKED)""",
                [unused],
            )
            deleted = cursor.rowcount
    return deleted, found[-1][0] if len(found) == limit else 0
