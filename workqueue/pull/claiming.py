"""What a pull worker may have, handed out under a lease: elements as they would go to a run of ours.

The prefix in the order (priority, job, element) that its limits allow; of each job only elements of the
lowest phase, so that a listing and what follows from it never travel together. Nothing that such a worker
cannot reach: only jobs of a documented protocol whose sites have an endpoint of it at their root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Q

from workers import secrets
from workers.models import Membership
from workqueue.book import batches, dispatching, ending
from workqueue.errors import NoSuchSite
from workqueue.models import Credential, Element, Job, Site
from workqueue.models.jobs import Type

#: The protocols that such workers speak, by their documented names.
SPOKEN: Final = ("GRIDFTP", "SSH")
#: Defaults of the two algorithms: elements, bytes.
NUMBER: Final = 20
SIZE: Final = 150_000_000
#: Most elements at once, whatever is asked for.
MOST: Final = 2000
#: Jobs that one call looks at.
_JOBS: Final = 200
#: The lease, in seconds: for each job of it by its type, and for the way.
LEASE_COPY_S: Final = 3600
LEASE_S: Final = 120
LEASE_MORE_S: Final = 60

_CANDIDATES: Final = """
    SELECT j.id FROM workqueue_job j
    WHERE j.finished_at IS NULL AND j.cancel_requested_at IS NULL AND j.tenant_id = ANY(%(tenants)s)
        AND j.type = ANY(%(types)s) AND j.protocol = ANY(%(protocols)s)
        AND j.elements = j.num_new + j.num_submitted + j.num_running + j.num_done + j.num_failed
        AND EXISTS (SELECT 1 FROM workqueue_element e WHERE e.job_id = j.id AND e.status IN (0, 3)
            AND e.batch_id IS NULL AND (e.not_before IS NULL OR e.not_before <= now()))
    ORDER BY j.priority, j.id LIMIT %(most)s
"""
_READY: Final = """
    SELECT e.number, e.status, e.phase, coalesce(e.size, 0)
    FROM workqueue_element e
    WHERE e.job_id = %(job)s AND e.status IN (0, 3) AND e.batch_id IS NULL
        AND (e.not_before IS NULL OR e.not_before <= now())
        AND e.phase = (SELECT min(phase) FROM workqueue_element
                       WHERE job_id = %(job)s AND status IN (0, 3, 4))
    ORDER BY e.number LIMIT %(most)s
"""
_BATCH: Final = """
    INSERT INTO workqueue_batch (job_id, source_id, target_id, streams, phase, holder, lease_until)
    VALUES (%s, %s, %s, 1, %s, %s, now() + %s * interval '1 second') RETURNING id
"""
_TAKE: Final = """
    UPDATE workqueue_element SET batch_id = %s, status = 3, not_before = NULL,
        changed_at = CASE WHEN status = 0 THEN now() ELSE changed_at END
    WHERE job_id = %s AND number = ANY(%s)
"""


@dataclass(frozen=True)
class Limits:
    """How much a worker wants at once: so many elements, or so many bytes (None: no matter)."""

    number: int = MOST
    size: int | None = None


@dataclass(frozen=True)
class Handed:
    """Elements of a job, handed out. ``src_credentials`` and ``dst_credentials``: "" when there are none."""

    job: Job
    batch: int
    elements: list[Element]
    src_credentials: str
    dst_credentials: str


def tenants_of(user_id: int | None, tenant_id: int, *, named: bool) -> list[int]:
    """Whose jobs a worker sees: those of every tenant that an operator has made it a member of, or of the one
    that its request names."""
    if named or user_id is None:
        return [tenant_id]
    found = Membership.objects.filter(user_id=user_id, tenant__active=True)
    return sorted(found.values_list("tenant_id", flat=True))


def claim(tenants: Sequence[int], types: Sequence[int], limits: Limits, holder: str) -> list[Handed]:
    """Hand out what fits, in one transaction; [] when there is no work. SecretUnreadable."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [dispatching.LOCK])
        cursor.execute(
            _CANDIDATES,
            {"tenants": list(tenants), "types": list(types), "protocols": list(SPOKEN), "most": _JOBS},
        )
        room = _Room(limits)
        taken: list[tuple[Job, list[tuple[Any, ...]]]] = []
        for (job_id,) in cursor.fetchall():
            if room.full:
                break
            job = _open(job_id)
            rows = room.take(_ready(cursor, job)) if job is not None else []
            if job is not None and rows:
                taken.append((job, rows))
        lease_s = LEASE_MORE_S + sum(
            LEASE_COPY_S if job.type == Type.COPY and rows[0][2] else LEASE_S for job, rows in taken
        )
        return [_hand(cursor, job, rows, holder, lease_s) for job, rows in taken]


class _Room:
    """What still fits into the batch. Its first element always does."""

    def __init__(self, limits: Limits) -> None:
        self._number = max(1, min(limits.number, MOST))
        self._size = limits.size
        self._empty = True
        self.full = False

    def take(self, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Those from the beginning that fit; afterwards it may be ``full``."""
        found = []
        for row in rows:
            size = row[3]
            if not self._empty and self._size is not None and size > self._size:
                self.full = True
                break
            found.append(row)
            self._empty = False
            self._number -= 1
            if self._size is not None:
                self._size -= size
            if self._number <= 0 or (self._size is not None and self._size <= 0):
                self.full = True
                break
        return found


def site_of(tenants: Sequence[int], asked: str) -> Site:
    """A site of these tenants, or a public one. NoSuchSite."""
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        raise NoSuchSite(asked)
    rows = Site.objects.filter(
        Q(visibility=Site.Visibility.PUBLIC) | Q(tenant_id__in=tenants), deleted_at=None, pk=int(asked)
    )
    found = rows.first()
    if found is None:
        raise NoSuchSite(asked)
    return found


def reachable(site: Site, protocol: str) -> bool:
    """Can such a worker reach the site? It knows hosts and paths, no base paths."""
    return any(_plain(item, protocol) for item in site.endpoints)


def hosts(site: Site) -> list[str]:
    """The endpoints for such workers, "host:port": of the first documented protocol that the site speaks."""
    for protocol in SPOKEN:
        found = [f"{item['host']}:{_port(item)}" for item in site.endpoints if _plain(item, protocol)]
        if found:
            return found
    return []


def _port(endpoint: dict[str, Any]) -> int:
    usual = {"GRIDFTP": 2811, "SFTP": 22, "SSH": 22}
    return int(endpoint.get("port") or usual[endpoint["protocol"]])


def _plain(endpoint: dict[str, Any], protocol: str) -> bool:
    return (
        batches.spoken(endpoint["protocol"]) == batches.spoken(protocol)
        and (endpoint.get("path") or "/").strip("/") == ""
    )


def _open(job_id: int) -> Job | None:
    """The job, locked, if something of it may be handed out to a pull worker."""
    rows = Job.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
    job = rows.filter(pk=job_id, finished_at=None, cancel_requested_at=None).first()
    if job is None or job.elements != ending.counted(job):
        return None
    sites = [site for site in (job.source, job.target) if site is not None]
    if any(batches.banned(site) or not reachable(site, job.protocol) for site in sites):
        return None
    return job


def _ready(cursor: CursorWrapper, job: Job) -> list[tuple[Any, ...]]:
    cursor.execute(_READY, {"job": job.pk, "most": MOST})
    try:
        return batches.uncontested(cursor, job, cursor.fetchall())
    except batches.Waits:
        return []


def _hand(
    cursor: CursorWrapper, job: Job, rows: Sequence[tuple[Any, ...]], holder: str, lease_s: int
) -> Handed:
    target_id = job.target_id if rows[0][2] else None
    cursor.execute(_BATCH, [job.pk, job.source_id, target_id, rows[0][2], holder[:255], lease_s])
    (batch,) = cursor.fetchone()
    numbers = [row[0] for row in rows]
    cursor.execute(_TAKE, [batch, job.pk, numbers])
    ending.count(job, {(0, 3): sum(row[1] == 0 for row in rows)})
    return Handed(
        job,
        batch,
        list(Element.objects.filter(job_id=job.pk, number__in=numbers).order_by("number")),
        _credential(job.source_id, job.user_id),
        _credential(job.target_id, job.user_id),
    )


def _credential(site_id: int | None, user_id: int | None) -> str:
    """What the original's workers know as a credential: one text, the proxy's or the key's."""
    if site_id is None or user_id is None:
        return ""
    row = Credential.objects.filter(site_id=site_id, user_id=user_id).first()
    kept = None if row is None else row.proxy_id or row.key_id or row.password_id
    return secrets.reveal(kept) if kept is not None else ""
