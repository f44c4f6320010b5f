"""The verbs of jobs: register, cancel, retry. What follows from them is the book's. Must not import views."""

from __future__ import annotations

import uuid

from django.db import connection, transaction
from django.utils import timezone
from structlog.contextvars import bind_contextvars

from workers.vocabulary.errors import Conflict
from workqueue.book import opening, stopping
from workqueue.errors import NoSuchSite
from workqueue.jobs import requests, wire
from workqueue.jobs.requests import JobRequest
from workqueue.models import Job, Site
from workqueue.sites import reading as sites
from workqueue.who import Who


def register(who: Who, wanted: JobRequest, callback_url: str = "") -> Job:
    """A new job. NoSuchSite; Conflict: a site is banned; InvalidInput: it would remove a site's root."""
    with transaction.atomic():
        found = _sites(who, wanted)
        source = found[wanted.src_siteid]
        requests.refuse_root(wanted, source.default_path)
        target = found[wanted.dst_siteid] if wanted.dst_siteid is not None else None
        job = Job.objects.create(
            tenant_id=who.tenant_id,
            user_id=who.user_id,
            type=wanted.type,
            source=source,
            target=target,
            src_filepath=wanted.src_filepath,
            dst_filepath=wanted.dst_filepath,
            escaped=wanted.escaped,
            extra_opts=wanted.extra_opts,
            priority=wanted.priority,
            protocol=wanted.protocol,
            max_tries=wanted.max_tries,
            log_uid=uuid.uuid4().hex,
            callback_url=callback_url,
            pull=who.pulled or source.pull_only or (target is not None and target.pull_only),
        )
        opening.begin(job)
    bind_contextvars(job_id=job.pk)  # for the audit log
    return job


def cancel(who: Who, job: Job) -> bool:
    """End what has not ended of it; False: it had ended. Somebody else's job is cancelled by its operator."""
    return stopping.cancel(job, operator=job.user_id != who.user_id)


def retry(job: Job) -> int:
    """Its failed elements go again; how many. ``job`` is then as it is now.

    Conflict: none has failed, or a site of it is banned or gone.
    """
    if not job.num_failed:
        raise Conflict(f"job {job.pk} has no failed element: it is {wire.status(job).name}")
    with transaction.atomic():
        ids = _held({job.source_id, job.target_id or job.source_id})
        for site in Site.objects.filter(pk__in=ids):
            if site.deleted_at is not None:
                raise Conflict(f"site {site.pk} has been deleted: submit a job at another one")
            _refuse_banned(site)
        count = stopping.retry(job)
        job.refresh_from_db()  # before the commit: nothing may fail after it
    return count


def _sites(who: Who, wanted: JobRequest) -> dict[int, Site]:
    """The sites of a job, held against bans and deletion until it stands."""
    asked = {"src_siteid": wanted.src_siteid}
    if wanted.dst_siteid is not None:
        asked["dst_siteid"] = wanted.dst_siteid
    ids = _held(set(asked.values()))
    found = {site.pk: site for site in sites.visible(who).filter(pk__in=ids)}
    for field, site_id in asked.items():
        if site_id not in found:
            raise NoSuchSite(site_id, field=field)
        _refuse_banned(found[site_id], field)
    return found


def _held(site_ids: set[int]) -> list[int]:
    """Share the rows of sites: neither banned nor deleted until the transaction ends."""
    ids = sorted(site_ids)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM workqueue_site WHERE id = ANY(%s) ORDER BY id FOR SHARE", [ids])
    return ids


def _refuse_banned(site: Site, field: str | None = None) -> None:
    over = site.ban_until is not None and site.ban_until <= timezone.now()
    if site.ban in (Site.Ban.NONE, Site.Ban.WAIT_AS) or over:
        return
    why = f": {site.ban_message}" if site.ban_message else ""
    until = f" until {site.ban_until:%Y-%m-%dT%H:%M:%SZ}" if site.ban_until is not None else ""
    raise Conflict(f"site {site.pk} takes no new jobs{until}{why}", field=field)
