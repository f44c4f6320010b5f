"""How much one tenant may have: runs waiting, runs running, requests a second. The keys of ``Tenant.limits``.

Waiting runs are counted by the database (``models.books``), so that asking costs the same however many wait.
Far below the limit nothing is asked at all for up to a second; close to it each submission is let in under a
lock of its tenant, so that the limit holds exactly. Docs: decision 40. Must not import services or claiming.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers.models import Tenant
from workers.vocabulary.errors import InvalidInput, LimitReached

#: Key -> (the setting with its default, what it limits).
KEYS: Final[dict[str, tuple[str, str]]] = {
    "waiting_runs": ("GANTRY_TENANT_WAITING_RUNS", "runs that wait for a node at the same time"),
    "running_runs": ("GANTRY_TENANT_RUNNING_RUNS", "runs that run at the same time"),
    "requests_per_s": ("GANTRY_TENANT_REQUESTS_PER_S", "requests a second"),
}
MOST: Final = 1_000_000_000
#: So close to the limit submissions are let in one by one: more than other processes accept in a second.
_TAIL: Final = 1024
#: Two halves of advisory lock keys, apart from everybody else's: "gw" and "gr".
_WAITING_LOCK: Final = 0x6777 << 48
_RUNNING_LOCK: Final = 0x6772 << 48
_CACHE_S: Final = 5.0
_CACHE_MAX: Final = 10_000
_COUNT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may have; 0 = no limit."""

    waiting_runs: int
    running_runs: int
    requests_per_s: int


#: Tenant -> (until, its limits).
_known: dict[int, tuple[float, Limits]] = {}
#: Tenant -> [waiting when they were counted, when that was, submitted here since].
_counts: dict[int, list[float]] = {}


def effective(stored: Mapping[str, Any]) -> Limits:
    """A tenant's own limits over the installation's; what is no number counts for nothing."""
    chosen: dict[str, int] = {}
    for key, (setting, _) in KEYS.items():
        given = stored.get(key)
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            chosen[key] = given
        else:
            chosen[key] = getattr(settings, setting)
    return Limits(**chosen)


def of_many(tenant_ids: Iterable[int]) -> dict[int, Limits]:
    """The limits of these tenants, at most 5 s old; one query for those not remembered."""
    now = time.monotonic()
    wanted = set(tenant_ids)
    found = {key: known[1] for key in wanted if (known := _known.get(key)) is not None and known[0] > now}
    if missing := wanted - found.keys():
        stored = dict(Tenant.objects.filter(pk__in=missing).values_list("pk", "limits"))
        if len(_known) >= _CACHE_MAX:
            _known.clear()
        for key in missing:
            found[key] = effective(stored.get(key) or {})
            _known[key] = (now + _CACHE_S, found[key])
    return found


def of(tenant_id: int) -> Limits:
    """The limits of a tenant, at most 5 s old."""
    known = _known.get(tenant_id)
    if known is not None and known[0] > time.monotonic():
        return known[1]
    return of_many([tenant_id])[tenant_id]


def forget() -> None:
    """Drop what this process remembers: after a change."""
    _known.clear()
    _counts.clear()


def checked(limits: object) -> dict[str, int]:
    """Limits as an operator gives them, or InvalidInput naming the key that is wrong."""
    if not isinstance(limits, dict):
        raise InvalidInput('limits must be an object such as {"waiting_runs": 500}', field="limits")
    for key, value in limits.items():
        if key not in KEYS:
            raise InvalidInput(f"limits has no key {key!r}: the keys are {', '.join(KEYS)}", field="limits")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
            raise InvalidInput(
                f"limits.{key} must be a whole number from 0 (no limit) to {MOST}", field="limits"
            )
    return dict(limits)


def waiting(cursor: CursorWrapper, tenant_id: int) -> int:
    """How many runs of the tenant wait, counted by the database; a few rows to add up."""
    cursor.execute(
        "SELECT coalesce(sum(waiting), 0)::bigint FROM workers_tenantload WHERE tenant_id = %s", [tenant_id]
    )
    return int(cursor.fetchone()[0])


@contextmanager
def admitted(tenant_id: int, runs: int = 1) -> Iterator[None]:
    """Around the INSERT of ``runs`` waiting runs of a tenant: LimitReached when it may not have them.

    Close to the limit the block is a transaction (or a part of the caller's) that holds the tenant's lock
    until its commit.
    """
    limit = of(tenant_id).waiting_runs
    if not limit or _far_below(tenant_id, limit, runs):
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_WAITING_LOCK + tenant_id])
            count = waiting(cursor, tenant_id)
        if count + runs > limit:
            raise LimitReached(
                f"your tenant has {count} of at most {limit} runs waiting (waiting_runs): send it again when "
                "some have started, cancel some, or ask an operator for a higher limit",
                limit=limit,
                remaining=max(0, limit - count),
                name="waiting_runs",
            )
        yield


def _far_below(tenant_id: int, limit: int, runs: int) -> bool:
    """Is the limit out of reach, by a count of the last second and what was submitted here since?"""
    ceiling = limit - max(_TAIL, limit // 10)
    if ceiling <= 0:
        return False
    known, now = _counts.get(tenant_id), time.monotonic()
    if known is None or now - known[1] > _COUNT_S:
        with connection.cursor() as cursor:
            count = waiting(cursor, tenant_id)
        if len(_counts) >= _CACHE_MAX:
            _counts.clear()
        known = _counts[tenant_id] = [count, now, 0]
    known[2] += runs
    return known[0] + known[2] <= ceiling


def lock_running(cursor: CursorWrapper, tenant_ids: Iterable[int]) -> None:
    """Until the end of the transaction nobody else claims for these tenants: their running runs can be
    counted and added to. Taken after the node's row, in ascending order."""
    for tenant_id in sorted(tenant_ids):
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_RUNNING_LOCK + tenant_id])


def fold(limit: int) -> int:
    """Add the rows of connections that are gone to writer 0, so that there are few; returns how many."""
    gone = "NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = t.writer)"
    folded = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""-- counts of connections that are gone; one that another process adds up is skipped
                WITH old AS (DELETE FROM workers_tenantload WHERE (tenant_id, writer) IN (
                    SELECT tenant_id, writer FROM workers_tenantload t WHERE writer <> 0 AND {gone}
                    LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING tenant_id, waiting),
                -- the same counts under writer 0: the sum stays what it was
                kept AS (INSERT INTO workers_tenantload AS l (tenant_id, writer, waiting)
                    SELECT tenant_id, 0, sum(waiting) FROM old GROUP BY tenant_id ORDER BY tenant_id
                    ON CONFLICT (tenant_id, writer) DO UPDATE SET waiting = l.waiting + excluded.waiting)
                SELECT count(*) FROM old""",  # noqa: S608  constants
            [limit],
        )
        folded += int(cursor.fetchone()[0])
        cursor.execute(
            f"""-- counts of connections that are gone; one that another process adds up is skipped
                WITH old AS (DELETE FROM workers_usageday WHERE (tenant_id, day, family, state, writer) IN (
                    SELECT tenant_id, day, family, state, writer FROM workers_usageday t
                    WHERE writer <> 0 AND {gone} LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING *),
                -- the same counts under writer 0: the sum stays what it was
                kept AS (INSERT INTO workers_usageday AS u
                        (tenant_id, day, family, state, writer, runs, attempts, cpu_ms, mem_mb_s, log_bytes,
                            callbacks_delivered, callbacks_dead)
                    SELECT tenant_id, day, family, state, 0, sum(runs), sum(attempts), sum(cpu_ms),
                        sum(mem_mb_s), sum(log_bytes), sum(callbacks_delivered), sum(callbacks_dead)
                    FROM old GROUP BY tenant_id, day, family, state ORDER BY 1, 2, 3, 4
                    ON CONFLICT (tenant_id, day, family, state, writer) DO UPDATE SET
                        runs = u.runs + excluded.runs, attempts = u.attempts + excluded.attempts,
                        cpu_ms = u.cpu_ms + excluded.cpu_ms, mem_mb_s = u.mem_mb_s + excluded.mem_mb_s,
                        log_bytes = u.log_bytes + excluded.log_bytes,
                        callbacks_delivered = u.callbacks_delivered + excluded.callbacks_delivered,
                        callbacks_dead = u.callbacks_dead + excluded.callbacks_dead)
                SELECT count(*) FROM old""",  # noqa: S608  constants
            [limit],
        )
        folded += int(cursor.fetchone()[0])
    return folded
