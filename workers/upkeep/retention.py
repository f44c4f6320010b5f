"""Everything ends: deletes what is older than it is kept, in bounded batches.

How long each tenant's runs and output are kept says ``workers.tenants.retention_policy``. Safe to run in
several processes at once (SKIP LOCKED) and to interrupt at any time. Called by the reconciler every few
seconds, so a round without work costs a few milliseconds, and by `manage.py prune`. Must not import services,
claiming, agents or runtimes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any, Final, cast

from django.conf import settings
from django.db import connection, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from workers.logs import store as logs
from workers.models import Run, Secret
from workers.tenants import audit, retention_policy
from workers.vocabulary.duties import one_by_one

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

#: Tenants' families looked at in one round: each costs two probes of an index.
_OWNERS: Final = 200
#: Runs with output that one round walks over without deleting anything.
_WALK: Final = 20_000

#: What is looked at in turns: where the last round stopped.
_last_shape = 0
_last_owner: tuple[int, str] = (0, "")
_last_output = 0
_last_secret = 0


def prune_once(limit: int) -> dict[str, int]:
    """One bounded round: at most ``limit`` rows of each kind (four times as many chunks of logs).

    Returns {what: how many were deleted}. Waiting and running runs keep everything. One kind that cannot be
    deleted stops none of the others.
    """
    own: dict[str, Callable[[int], int]] = {
        "run_secrets": _wipe_next_secrets,
        "shapes": _prune_next_shapes,
        "runs": _prune_runs,
        "logs": _prune_logs,
        "idempotency_keys": lambda most: _prune_old(
            "workers_idempotencykey", "created_at", f"{IDEMPOTENCY_H} hours", most
        ),
        "node_requests": lambda most: _prune_old("workers_noderequest", "id", f"{REQUEST_MIN} minutes", most),
        "receivers": _prune_receivers,
        "audit": lambda most: audit.prune(settings.GANTRY_KEEP_AUDIT_D, most),
        "usage": _prune_usage,
    }
    done = one_by_one("what is kept no longer", own, lambda what: own[what](limit))
    families = one_by_one("what a family keeps no longer", _pruners(), lambda prune: prune(limit))
    return {**done, **{what: count for counts in families.values() for what, count in counts.items()}}


def _wipe_next_secrets(limit: int) -> int:
    global _last_secret
    wiped, _last_secret = _wipe_secrets(_last_secret, limit)
    return wiped


def _prune_next_shapes(limit: int) -> int:
    global _last_shape
    deleted, _last_shape = _prune_shapes(_last_shape, limit)
    return deleted


@cache
def _pruners() -> list[Callable[[int], dict[str, int]]]:
    """The families' own; what they let go of lets go of its runs."""
    return [import_string(dotted) for dotted in settings.GANTRY_PRUNERS]


def prune_all(limit: int = 500) -> Iterator[dict[str, int]]:
    """Rounds until nothing is left to delete; yields what each deleted."""
    global _last_owner, _last_output
    _last_owner, _last_output = (0, ""), 0
    busy = True
    while busy:
        counts = prune_once(limit)
        busy = any(count for what, count in counts.items() if what != "shapes")
        busy = busy or _last_owner != (0, "") or _last_output != 0
        yield counts
    last, first = 0, True
    while last or first:
        shapes, last = _prune_shapes(last, limit)
        first = False
        yield {"shapes": shapes}


def _prune_runs(limit: int) -> int:
    """Ended runs with their attempts, events and whatever a family has attached to them."""
    global _last_owner
    stored = retention_policy.stored()
    owners = _owners_of_ended(_last_owner)
    left = limit
    for tenant_id, family, oldest_d in owners:
        days = retention_policy.effective(stored.get(tenant_id, {}), family).runs_d
        if 0 < days < oldest_d and left > 0:
            left -= _prune_runs_of(tenant_id, family, days, left)
        if left <= 0:
            return limit  # the next round goes on with the same one
        _last_owner = (tenant_id, family)
    if len(owners) < _OWNERS:
        _last_owner = (0, "")
    return limit - left


def _owners_of_ended(after: tuple[int, str]) -> list[tuple[int, str, float]]:
    """The next (tenant, family, days since its oldest run ended), by jumps through the index."""
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH RECURSIVE walk AS (
                   -- where the last round stopped: step 0 is no answer
                   SELECT %s::bigint AS tenant_id, %s::text AS family, NULL::timestamptz AS oldest, 0 AS step
                 UNION ALL
                   -- the oldest ended run of the next tenant and family: one jump through the index each
                   SELECT next.tenant_id, next.family, next.finished_at, w.step + 1 FROM walk w
                   CROSS JOIN LATERAL (SELECT tenant_id, family, finished_at FROM workers_run r
                       WHERE finished_at IS NOT NULL AND (r.tenant_id, r.family) > (w.tenant_id, w.family)
                       ORDER BY tenant_id, family, finished_at LIMIT 1) next
                   WHERE w.step < %s)
               SELECT tenant_id, family, (extract(epoch FROM now() - oldest) / 86400)::float8
               FROM walk WHERE step > 0 ORDER BY 1, 2""",
            [*after, _OWNERS],
        )
        return list(cursor.fetchall())


def _prune_runs_of(tenant_id: int, family: str, days: int, limit: int) -> int:
    related = cast("tuple[Any, ...]", Run._meta.related_objects)
    relations = [relation for relation in related if relation.field.db_constraint]
    old = Run.objects.filter(tenant_id=tenant_id, family=family, finished_at__lt=Now() - timedelta(days=days))
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
    global _last_output
    stored = retention_policy.stored()
    families = [*settings.GANTRY_FAMILIES, ""]
    times = [
        retention_policy.effective(own, family).output_d
        for own in (*stored.values(), {})
        for family in families
    ]
    least = min((days for days in times if days > 0), default=0)
    if least == 0:
        return 0
    left, walked = limit * _CHUNKS, 0
    while left > 0 and walked < max(_WALK, limit):
        with transaction.atomic(), connection.cursor() as cursor:
            found = _runs_with_output(cursor, least, _last_output, limit)
            gone = [run_id for run_id, tenant_id, *_ in found if tenant_id is None]
            old = [
                run_id
                for run_id, tenant_id, family, ended_d, _ in found
                if tenant_id is not None
                and 0 < retention_policy.effective(stored.get(tenant_id, {}), family).output_d < ended_d
            ]
            if old or gone:
                left -= logs.prune(cursor, old, gone, left)
        walked += len(found)
        if len(found) < limit or found[-1][4]:
            _last_output = 0  # at its end: the next round begins again
            break
        if left > 0:
            _last_output = found[-1][0]
    return limit * _CHUNKS - max(left, 0)


def _runs_with_output(
    cursor: CursorWrapper, days: int, after: int, limit: int
) -> list[tuple[int, int | None, str, float, bool]]:
    """The next runs that have output, by id: (run id, tenant, family, days since its end, too young to go).

    No tenant: the run is gone. -1 days: it has not ended. Jumps from run to run in the primary key, so that
    the number of chunks does not matter, and stops at the first run that was submitted too late to have ended
    long ago: ids follow time closely enough.
    """
    cursor.execute(
        """WITH RECURSIVE walk AS (
               -- where the last round stopped: step 0 is no answer
               SELECT %(after)s::bigint AS run_id, NULL::bigint AS tenant_id, ''::varchar AS family,
                   -1::float8 AS ended_d, false AS young, 0 AS step
             UNION ALL
               -- the next run that has output, and what is left of its row: one jump each, up to a young one
               SELECT next.run_id, r.tenant_id, coalesce(r.family, ''),
                   coalesce((extract(epoch FROM now() - r.finished_at) / 86400)::float8, -1),
                   coalesce(r.created_at >= now() - %(days)s * interval '1 day', false), w.step + 1
               FROM walk w
               CROSS JOIN LATERAL (SELECT c.run_id FROM workers_logchunk c WHERE c.run_id > w.run_id
                   ORDER BY c.run_id LIMIT 1) next
               LEFT JOIN workers_run r ON r.id = next.run_id
               WHERE w.step < %(limit)s AND NOT w.young)
           SELECT run_id, tenant_id, family, ended_d, young FROM walk WHERE step > 0 ORDER BY run_id""",
        {"after": after, "limit": limit, "days": days},
    )
    return list(cursor.fetchall())


def _wipe_secrets(after: int, limit: int) -> tuple[int, int]:
    """Those of ended runs among the next ``limit`` secrets of runs; (wiped, where to go on; 0: anew).

    In turns: what is looked at is bounded by ``limit``, not by how many runs wait.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT s.id, s.run_id, r.finished_at IS NOT NULL
               FROM workers_secret s JOIN workers_run r ON r.id = s.run_id
               WHERE s.run_id > %s ORDER BY s.run_id LIMIT %s""",
            [after, limit],
        )
        found = cursor.fetchall()
    done = {run_id for _, run_id, ended in found if ended}
    wiped = Secret.objects.filter(run_id__in=done).delete()[0] if done else 0
    return wiped, found[-1][1] if len(found) == limit else 0


def _prune_usage(limit: int) -> int:
    """Days of the usage report that are older than GANTRY_KEEP_USAGE_D."""
    if settings.GANTRY_KEEP_USAGE_D <= 0:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """DELETE FROM workers_usageday WHERE ctid = ANY(ARRAY(SELECT ctid FROM workers_usageday
                   WHERE day < current_date - %s ORDER BY day LIMIT %s FOR UPDATE SKIP LOCKED))""",
            [settings.GANTRY_KEEP_USAGE_D, limit],
        )
        return int(cursor.rowcount)


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
