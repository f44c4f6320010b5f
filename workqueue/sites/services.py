"""The verbs of sites: create, replace, delete, limits, bans. One transaction each. Must not import views.

What a site's jobs look at (its ban, whether it is there) changes under its row's lock, which a submission
shares: no job begins at a site behind the back of whoever bans or deletes it.
"""

from __future__ import annotations

from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from structlog.contextvars import bind_contextvars

from workers.messages import doorbell
from workers.models import Node
from workers.vocabulary.errors import Conflict, Forbidden, InvalidInput
from workqueue.errors import NoSuchSite
from workqueue.models import Job, Site
from workqueue.sites import credentials, endpoints, reading
from workqueue.sites.requests import BanRequest, LimitsRequest, SiteRequest
from workqueue.who import Who

#: The constraint that keeps names apart.
_NAME_TAKEN: Final = "site_once"
#: A node that has the folder of a LOCAL site says so by this attribute.
ADVERTISED: Final = "local:"


def create(who: Who, wanted: SiteRequest) -> Site:
    """A new site. Conflict: the tenant has one of this name."""
    row = Site(tenant_id=who.tenant_id, owner_id=who.user_id, by_operator=who.operates)
    if wanted.visibility == Site.Visibility.PRIVATE and who.user_id is None:
        raise InvalidInput("visibility private needs a user, whose it is: use tenant", field="visibility")
    _apply(row, wanted)
    _save(row)
    bind_contextvars(site_id=row.pk)  # for the audit log
    return row


def replace(who: Who, site_id: int, wanted: SiteRequest) -> Site:
    """The site with everything replaced but limits, ban and credentials. Forbidden: it is not one's own.

    Where a user's site leads elsewhere than before, or trusts others, the credentials of all its users are
    wiped: they were given for where it led.
    """
    with transaction.atomic():
        row = _locked(who, site_id)
        was = (row.endpoints, row.cas, row.host_keys)
        _apply(row, wanted)
        _save(row)
        if not row.by_operator and was != (row.endpoints, row.cas, row.host_keys):
            credentials.wipe(row.pk)
    return row


def delete(who: Who, site_id: int) -> Site:
    """It is no more to be found, and its credentials are wiped. Conflict: jobs that have not ended use it."""
    with transaction.atomic():
        row = _locked(who, site_id)
        jobs = Job.objects.filter(Q(source=row) | Q(target=row), finished_at=None)
        using = list(jobs.order_by("pk").values_list("pk", flat=True)[:3])
        if using:
            raise Conflict(
                f"site {row.pk} is used by jobs that have not ended (such as {', '.join(map(str, using))}): "
                "cancel them first"
            )
        row.deleted_at = Now()
        row.save(update_fields=["deleted_at"])
        credentials.wipe(row.pk)
    return row


def set_limits(who: Who, site_id: int, wanted: LimitsRequest) -> Site:
    """How much may go on there at once. Operators only."""
    with transaction.atomic():
        row = _locked(who, site_id)
        row.max_active_in, row.max_active_out = wanted.max_active_in, wanted.max_active_out
        row.max_bytes_per_s = wanted.max_bytes_per_s
        row.save(update_fields=["max_active_in", "max_active_out", "max_bytes_per_s"])
        doorbell.ring_duties_after_commit()
    return row


def set_ban(who: Who, site_id: int, wanted: BanRequest) -> Site:
    """Ban it; whoever hands out its jobs' elements looks at once, and cancels them if it says so."""
    with transaction.atomic():
        row = _locked(who, site_id)
        _ban(row, wanted)
    return row


def lift_ban(who: Who, site_id: int) -> Site:
    """Its jobs go on. Operators only."""
    with transaction.atomic():
        row = _locked(who, site_id)
        _ban(row, BanRequest(Site.Ban.NONE.value, "", None))
    return row


def advertised() -> set[str]:
    """The folders that nodes offer for LOCAL sites."""
    return {
        name.removeprefix(ADVERTISED)
        for attributes in Node.objects.exclude(mode=Node.Mode.REMOVED).values_list("attributes", flat=True)
        for name, value in attributes.items()
        if name.startswith(ADVERTISED) and value == "yes"
    }


def _ban(row: Site, wanted: BanRequest) -> None:
    row.ban, row.ban_message, row.ban_until = wanted.mode, wanted.message, wanted.until
    row.save(update_fields=["ban", "ban_message", "ban_until"])
    doorbell.ring_duties_after_commit()


def _locked(who: Who, site_id: int) -> Site:
    """The row of a site that the caller may change, locked. NoSuchSite, Forbidden."""
    row = reading.visible(who).select_for_update().filter(pk=site_id).first()
    if row is None:
        raise NoSuchSite(site_id)
    if not (who.operates or (row.owner_id == who.user_id and not row.by_operator)):
        raise Forbidden(f"site {site_id} is not yours: its owner or an operator can change it")
    return row


def check(row: Site, wanted: SiteRequest) -> None:
    """May this site become so? Forbidden, InvalidInput."""
    if not row.by_operator:
        _refuse_what_is_operators(wanted)
        if wanted.pull_only not in (None, row.pull_only):
            raise Forbidden("pull_only is for operators (scope operate): leave it out")
    _check_folders(wanted)


def _apply(row: Site, wanted: SiteRequest) -> None:
    check(row, wanted)
    if wanted.pull_only is not None:
        row.pull_only = wanted.pull_only
    row.name, row.description, row.visibility = wanted.name, wanted.description, wanted.visibility
    row.default_path, row.endpoints = wanted.default_path, wanted.endpoints
    row.cas, row.host_keys = wanted.cas, wanted.host_keys


def _refuse_what_is_operators(wanted: SiteRequest) -> None:
    if wanted.visibility == Site.Visibility.PUBLIC:
        raise Forbidden("only operators (scope operate) make public sites: use tenant or private")
    if closed := endpoints.of_operators(wanted.endpoints):
        raise Forbidden(
            f"only sites made by operators (scope operate) may use {', '.join(closed)}: ask one to make it"
        )


def _check_folders(wanted: SiteRequest) -> None:
    folders = endpoints.folders(wanted.endpoints)
    if not folders:
        return
    there = advertised()
    for folder in folders:
        if not any(folder == root or folder.startswith(f"{root.rstrip('/')}/") for root in there):
            raise InvalidInput(
                f"endpoints: no node offers the folder {folder[:200]} or one above it: name it in "
                "GANTRY_LOCAL_SITES of a node and start its worker",
                field="endpoints",
            )


def _save(row: Site) -> None:
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:
        if _NAME_TAKEN in str(error):
            raise Conflict(
                f"there is a site {row.name!r} in this tenant: use another name", field="name"
            ) from None
        raise
