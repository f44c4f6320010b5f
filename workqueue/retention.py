"""Everything ends: jobs after the tenant's retention, with their elements, attempts, listings and batches.

Called by ``workers.upkeep.retention`` (GANTRY_PRUNERS) in bounded rounds; safe in several processes at once.
A job of a million elements goes in pieces, its row last. Must not import services or views.
"""

from __future__ import annotations

from typing import Any, Final

from django.db import connection, transaction

from workers.models import Callback
from workers.tenants import retention_policy
from workqueue import hooks
from workqueue.models import Batch, Job

#: Rows of elements that go for each job of the limit.
_ROWS: Final = 20

_OLD: Final = """
    WITH own AS (SELECT * FROM unnest(%(tenants)s::bigint[], %(days)s::int[]) AS o(tenant_id, days))
    SELECT j.id FROM workqueue_job j LEFT JOIN own ON own.tenant_id = j.tenant_id
    WHERE coalesce(own.days, %(default)s) > 0
        AND j.finished_at < now() - coalesce(own.days, %(default)s) * interval '1 day'
        AND NOT EXISTS (SELECT 1 FROM workqueue_batch b WHERE b.job_id = j.id AND b.closed_at IS NULL)
    ORDER BY j.finished_at LIMIT %(limit)s FOR NO KEY UPDATE OF j SKIP LOCKED
"""
_PIECES: Final = ("workqueue_listingpart", "workqueue_elementattempt", "workqueue_element")


def prune(limit: int) -> dict[str, int]:
    """One bounded round. What is not finished keeps everything."""
    own = {
        tenant: retention_policy.effective(kept, hooks.FAMILY).runs_d
        for tenant, kept in retention_policy.stored().items()
    }
    params: dict[str, Any] = {
        "tenants": list(own),
        "days": list(own.values()),
        "default": retention_policy.effective({}, hooks.FAMILY).runs_d,
        "limit": limit,
    }
    rows = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_OLD, params)
        ids = [job_id for (job_id,) in cursor.fetchall()]
        for table in _PIECES:
            if ids and rows < limit * _ROWS:
                cursor.execute(
                    f"""DELETE FROM {table} WHERE ctid = ANY(ARRAY(
                            SELECT ctid FROM {table} WHERE job_id = ANY(%s) LIMIT %s))""",  # noqa: S608  constants
                    [ids, limit * _ROWS - rows],
                )
                rows += cursor.rowcount
        jobs = _prune_jobs(ids) if ids and rows < limit * _ROWS else 0
    return {"transfer_elements": rows, "transfer_jobs": jobs}


def _prune_jobs(ids: list[int]) -> int:
    """Jobs of which nothing else is left."""
    Callback.objects.filter(
        owner_kind=hooks.OWNER_KIND, owner_id__in=[str(job_id) for job_id in ids]
    ).delete()
    Batch.objects.filter(job_id__in=ids).delete()
    return Job.objects.filter(pk__in=ids).delete()[0]
