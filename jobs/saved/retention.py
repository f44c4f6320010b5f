"""Everything ends: old executors, deleted jobs without any, secrets that nothing needs any more.

Called by ``workers.upkeep.retention`` (GANTRY_PRUNERS) in bounded rounds; safe in several processes at once.
Must not import services or views.
"""

from __future__ import annotations

from django.conf import settings
from django.db import connection, transaction

from jobs.models import Executor, Job
from workers import secrets


def prune(limit: int) -> dict[str, int]:
    """One bounded round. What runs, or ended less than GANTRY_KEEP_RUNS_D days ago, is kept (0: for ever)."""
    days = settings.GANTRY_KEEP_RUNS_D
    return {
        "executors": _prune_executors(days, limit) if days > 0 else 0,
        "jobs": _prune_jobs(days, limit) if days > 0 else 0,
        "job_secrets": wipe_retired(limit),
    }


def _prune_executors(days: int, limit: int) -> int:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT e.id FROM jobs_executor e
                   WHERE e.create_time < extract(epoch FROM now())::float8 - %(days)s * 86400.0
                     AND NOT EXISTS (SELECT 1 FROM jobs_target t JOIN workers_run r ON r.id = t.run_id
                         WHERE t.executor_id = e.id AND (r.finished_at IS NULL
                             OR r.finished_at >= now() - %(days)s * interval '1 day'))
                   ORDER BY e.create_time LIMIT %(limit)s FOR UPDATE SKIP LOCKED""",
                {"days": days, "limit": limit},
            )
            ids = [row[0] for row in cursor.fetchall()]
        if ids:
            Executor.objects.filter(pk__in=ids).delete()
    return len(ids)


def _prune_jobs(days: int, limit: int) -> int:
    """Jobs that were deleted long ago, when their last executor and their last secret have gone."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """SELECT j.id FROM jobs_job j
               WHERE j.deleted_at < now() - %s * interval '1 day' AND j.retired_secret_ids = '{}'
                 AND NOT EXISTS (SELECT 1 FROM jobs_executor e WHERE e.job_id = j.id)
               LIMIT %s FOR UPDATE SKIP LOCKED""",
            [days, limit],
        )
        ids = [row[0] for row in cursor.fetchall()]
        if ids:
            Job.objects.filter(pk__in=ids).delete()
    return len(ids)


def wipe_retired(limit: int, job: int | None = None) -> int:
    """Wipe secrets that edits and deletions have dropped and no unfinished run uses; how many there were."""
    wiped = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            """SELECT j.id, j.retired_secret_ids, ARRAY(
                   SELECT DISTINCT used FROM jobs_executor e CROSS JOIN unnest(e.secret_ids) used
                   WHERE e.job_id = j.id AND e.secret_ids && j.retired_secret_ids AND EXISTS (
                       SELECT 1 FROM jobs_target t JOIN workers_run r ON r.id = t.run_id
                       WHERE t.executor_id = e.id AND r.finished_at IS NULL))
               FROM jobs_job j WHERE j.retired_secret_ids <> '{}' AND (%(job)s IS NULL OR j.id = %(job)s)
               ORDER BY j.id LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED""",
            {"job": job, "limit": limit},
        )
        for job_id, retired, used in cursor.fetchall():
            free = [secret_id for secret_id in retired if secret_id not in used]
            if free:
                wiped += secrets.wipe(free)
                Job.objects.filter(pk=job_id).update(
                    retired_secret_ids=[secret_id for secret_id in retired if secret_id in used]
                )
    return wiped
