"""What a run has to do: read right before it starts, secrets included, told to the mover and stored nowhere.

Must not import what enters reports.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from workers import secrets
from workers.models import Installation
from workers.vocabulary.errors import SecretUnreadable
from workers.vocabulary.leases import Lease
from workers.vocabulary.transfers.orders import OPTIONS, Order, Orders
from workers.vocabulary.transfers.reach import Credentials, Reach
from workqueue.book import batches, ending, flow
from workqueue.models import Batch, Credential, Job, Site
from workqueue.models.jobs import Type

log = structlog.get_logger(__name__)

#: Parts of ended elements that one run sweeps away beside its work.
SWEEPS: Final = 1000
#: Bans under which nothing new begins.
WAITS: Final = (Site.Ban.WAIT, Site.Ban.WAIT_AS, Site.Ban.CANCEL)

_ELEMENTS: Final = """
    SELECT number, type, src_filepath, dst_filepath, escaped, size, attempts, max_tries, part_attempt,
        source_version
    FROM workqueue_element WHERE job_id = %s AND batch_id = %s AND status IN (3, 4) ORDER BY number
"""
#: Parts to sweep are held by the batch until its end, so that nobody else does it meanwhile.
_SWEEP: Final = """
    UPDATE workqueue_element SET batch_id = %(batch)s
    WHERE job_id = %(job)s AND number = ANY(ARRAY(SELECT number FROM workqueue_element
        WHERE job_id = %(job)s AND status = 2 AND part_attempt IS NOT NULL
            AND (batch_id IS NULL OR batch_id = %(batch)s)
            AND (not_before IS NULL OR not_before <= now()) ORDER BY number LIMIT %(limit)s))
    RETURNING number, type, src_filepath, dst_filepath, escaped, size, attempts, max_tries, part_attempt,
        source_version
"""
_HOST: Final = """
    SELECT coalesce(n.attributes ->> 'hostname', n.name, '') FROM workers_run r
    LEFT JOIN workers_node n ON n.id = r.node_id WHERE r.id = %s
"""


def orders(lease: Lease, spec: dict[str, Any]) -> dict[str, Any] | None:
    """What the run has to do (``Orders``); None when nothing is left, or nothing can be done now."""
    with transaction.atomic(), connection.cursor() as cursor:
        batch = Batch.objects.filter(pk=spec["batch"], run_id=lease.run_id).first()
        job = None if batch is None else ending.lock(batch.job_id)
        if batch is None or job is None:
            return None
        batch.refresh_from_db()
        sites = [site for site in (job.source, job.target) if site is not None]
        if batch.closed_at is not None or any(site.ban in WAITS for site in sites):
            return None  # what it has not begun goes back when the run is over
        elements: tuple[Order, ...] = ()
        if job.cancel_requested_at is None:
            cursor.execute(_ELEMENTS, [job.pk, batch.pk])
            elements = tuple(_order(row) for row in cursor.fetchall())
        sweep: tuple[Order, ...] = ()
        if job.type == Type.COPY and batch.phase != 0:
            cursor.execute(_SWEEP, {"job": job.pk, "batch": batch.pk, "limit": SWEEPS})
            sweep = tuple(_order(row) for row in sorted(cursor.fetchall()))
        if not elements and not sweep:
            return None
        cursor.execute(_HOST, [lease.run_id])
        (host,) = cursor.fetchone() or ("",)
        name = _installation(cursor)
    try:
        return _told(job, batch, host, name, elements, sweep).to_json()
    except SecretUnreadable as error:
        # It waits, as for a node: what is wrong is the installation's keys, no element.
        log.warning("book.credentials_unreadable", job=job.pk, batch=batch.pk, error=error.message)
        Job.objects.filter(pk=job.pk).update(waiting_for=f"its credentials: {error.message}")
        return None


def _told(
    job: Job, batch: Batch, host: str, name: str, elements: tuple[Order, ...], sweep: tuple[Order, ...]
) -> Orders:
    target = job.target if job.type == Type.COPY else None
    return Orders(
        job=job.pk,
        job_act=Type(job.type).name,
        tag=f"{name}-{job.pk}",
        host=host,
        source=_reach(job.source, batch.src_endpoint, job),
        target=None if target is None else _reach(target, batch.dst_endpoint, job),
        dst=(job.dst_filepath or "") if job.type == Type.COPY else "",
        dst_escaped=job.escaped,
        options=_options(job),
        streams=batch.streams,
        rate=_rate(job.source, target, batch.streams),
        elements=elements,
        sweep=sweep,
    )


def _installation(cursor: CursorWrapper) -> str:
    """The name of this database, as nodes make it when they are registered."""
    cursor.execute(
        """INSERT INTO workers_installation (id, name)
           VALUES (1, substr(md5(gen_random_uuid()::text), 1, 12)) ON CONFLICT DO NOTHING"""
    )
    return Installation.objects.values_list("name", flat=True).get(pk=1)


def _order(row: tuple[Any, ...]) -> Order:
    number, kind, src, dst, escaped, size, attempts, max_tries, part, version = row
    return Order(
        n=number,
        act=Type(kind).name,
        src=src,
        dst=dst or "",
        escaped=escaped,
        size=-1 if size is None else size,
        attempt=attempts + 1,
        part=part,
        version=version,
        committed=attempts > 0 or part is not None,
        last=attempts + 1 >= max_tries,
    )


def _options(job: Job) -> dict[str, Any]:
    found = {name: job.extra_opts[name] for name in OPTIONS if name in job.extra_opts}
    if "parents" in job.extra_opts:
        found.setdefault("parent", job.extra_opts["parents"])
    return found


def _rate(source: Site, target: Site | None, streams: int) -> float | None:
    """Bytes/s that this batch may move: of each site's limit as much as it has of the site's streams."""
    ends = [(source, flow.most_out(source))]
    if target is not None:
        ends.append((target, flow.most_in(target)))
    shares = [
        site.max_bytes_per_s * min(1.0, streams / max(1, most)) for site, most in ends if site.max_bytes_per_s
    ]
    return min(shares, default=None)


def _reach(site: Site, index: int | None, job: Job) -> Reach:
    known = index is not None and index < len(site.endpoints)
    place = site.endpoints[index if known else batches.choose(site, job.protocol, 0)]
    return Reach(
        protocol=batches.spoken(place["protocol"]),
        host=place.get("host") or "",
        port=place.get("port") or 0,
        path=place.get("path") or "/",
        default_path=site.default_path,
        site_id=site.pk,
        site=site.name,
        cas=tuple(site.cas),
        host_keys=tuple(site.host_keys),
        options=place.get("options") or {},
        guarded=not site.by_operator,
        credentials=_credentials(site, job.user_id),
    )


def _credentials(site: Site, user_id: int | None) -> Credentials:
    """As whom the job's user is known at the site."""
    kept = Credential.objects.filter(site=site, user_id=user_id).first() if user_id is not None else None
    if kept is None:
        return Credentials()
    ids = {"password": kept.password_id, "key": kept.key_id, "proxy": kept.proxy_id}
    named = {name: secret_id for name, secret_id in ids.items() if secret_id is not None}
    texts = secrets.reveal_all(list(named.values()))
    return Credentials(username=kept.username, **dict(zip(named, texts, strict=True)))
