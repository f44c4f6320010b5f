"""What is stored about sites, for those who may see it. Must not import views.

A site is seen by everybody (public), by its tenant, or by its owner alone; operators see all of their tenant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import Q, QuerySet

from workqueue.errors import NoSuchSite
from workqueue.models import Credential, Site
from workqueue.sites import shapes
from workqueue.who import Who

_VISIBLE: Final = """
    o.deleted_at IS NULL AND (o.visibility = 'public' OR (o.tenant_id = %(tenant)s
        AND (%(all)s OR o.visibility = 'tenant' OR o.owner_id = %(user)s)))
"""
#: Links of a site whose other end is visible, with their latest changes, the newest first.
_LINKS: Final = f"""
    SELECT l.source_id, l.target_id, l.streams, l.throughput, l.sentence, l.changed_at,
        ARRAY(SELECT json_build_object('at', c.at, 'from', c.streams_before, 'to', c.streams,
                'sentence', c.sentence)
            FROM workqueue_linkchange c WHERE c.link_id = l.id
            ORDER BY c.at DESC, c.id DESC LIMIT %(changes)s)
    FROM workqueue_link l
    JOIN workqueue_site o ON o.id = CASE WHEN l.source_id = %(site)s THEN l.target_id ELSE l.source_id END
    WHERE (l.source_id = %(site)s OR l.target_id = %(site)s) AND {_VISIBLE}
    ORDER BY l.source_id, l.target_id LIMIT %(most)s
"""  # noqa: S608  our own text; every value is a parameter
#: Of one link.
CHANGES: Final = 20
LINKS_MOST: Final = 1000


class LinkFacts(NamedTuple):
    """A link and its latest changes."""

    source_id: int
    target_id: int
    streams: int
    throughput: float
    sentence: str
    changed_at: datetime
    changes: list[dict[str, Any]]


def visible(who: Who) -> QuerySet[Site]:
    """The sites that somebody may see and use."""
    mine = Q(visibility=Site.Visibility.TENANT)
    if who.operates:
        mine = Q()
    elif who.user_id is not None:
        mine |= Q(owner_id=who.user_id)
    return Site.objects.filter(
        Q(visibility=Site.Visibility.PUBLIC) | (Q(tenant_id=who.tenant_id) & mine), deleted_at=None
    )


def number(asked: str) -> int:
    """A site's id from a path; anything else is the id of no site."""
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        raise NoSuchSite(asked)
    return int(asked)


def site(who: Who, site_id: int) -> Site:
    """One site. NoSuchSite."""
    found = visible(who).filter(pk=site_id).first()
    if found is None:
        raise NoSuchSite(site_id)
    return found


def credential(who: Who, site_id: int) -> Credential | None:
    """As whom the caller is known there."""
    return Credential.objects.filter(site_id=site_id, user_id=who.user_id or 0).first()


def links(who: Who, site_id: int) -> list[LinkFacts]:
    """What goes to and from a site, as far as the other end is visible."""
    with connection.cursor() as cursor:
        cursor.execute(
            _LINKS,
            {
                "tenant": who.tenant_id,
                "user": who.user_id or 0,
                "all": who.operates,
                "site": site_id,
                "changes": CHANGES,
                "most": LINKS_MOST,
            },
        )
        return [LinkFacts._make(row) for row in cursor.fetchall()]


class SiteRows:
    """The sites that the caller sees (``workers.api.lists.Rows``)."""

    def __init__(self, who: Who) -> None:
        self._who = who

    def after(self, row_id: int, most: int) -> list[Site]:
        return list(visible(self._who).filter(pk__gt=row_id).order_by("pk")[:most])

    def nth(self, number: int) -> int | None:
        found = visible(self._who).order_by("pk").values_list("pk", flat=True)[number - 1 : number + 1]
        return found[0] if len(found) == 2 else None

    def row_id(self, row: Site) -> int:
        return int(row.pk)

    def render(self, rows: Sequence[Site]) -> Iterator[dict[str, Any]]:
        mine = Credential.objects.filter(site__in=rows, user_id=self._who.user_id or 0)
        known = {each.site_id: each for each in mine}
        return (shapes.site(row, known.get(row.pk)) for row in rows)
