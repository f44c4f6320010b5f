"""What is stored about jobs and elements, for those who may see it. Must not import views.

Jobs belong to their user; operators see all of their tenant's. Everything is read in batches by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.db import connection
from django.db.models import QuerySet

from workqueue.errors import NoSuchElement, NoSuchJob
from workqueue.jobs import wire
from workqueue.models import Element, Job
from workqueue.who import Who

#: Whatever runs is in an open batch.
_RUNNING: Final = """
    SELECT coalesce(sum(e.transferred), 0)::bigint, coalesce(sum(e.instant), 0)::float8
    FROM workqueue_batch b JOIN workqueue_element e ON e.batch_id = b.id AND e.status = 4
    WHERE b.job_id = %s AND b.closed_at IS NULL
"""


def own(who: Who) -> QuerySet[Job]:
    """The caller's own jobs."""
    rows = Job.objects.filter(tenant_id=who.tenant_id)
    return rows.filter(user=None) if who.user_id is None else rows.filter(user_id=who.user_id)


def job(who: Who, asked: str) -> Job:
    """One job, an operator's also another user's. NoSuchJob."""
    if not (asked.isascii() and asked.isdigit() and len(asked) <= 18):
        raise NoSuchJob(asked)
    rows = Job.objects.filter(tenant_id=who.tenant_id) if who.operates else own(who)
    found = rows.filter(pk=int(asked)).first()
    if found is None:
        raise NoSuchJob(asked)
    return found


def element(of: Job, asked: str) -> Element:
    """One element. NoSuchElement."""
    known = asked.isascii() and asked.isdigit() and len(asked) <= 9 and int(asked) < wire.elements_of(of)
    found = Element.objects.filter(job=of, number=int(asked)).first() if known else None
    if found is None:
        raise NoSuchElement(asked, of.pk)
    return found


def progress(of: Job) -> dict[str, Any]:
    """How far a job is: elements and bytes, those of running elements included."""
    with connection.cursor() as cursor:
        cursor.execute(_RUNNING, [of.pk])
        moving, instant = cursor.fetchone() or (0, 0.0)
    return {
        **wire.render_status(of),
        "num_elements": wire.elements_of(of),
        **{name: getattr(of, name) for name in wire.COUNTS},
        "bytes_total": of.bytes_total,
        "bytes_done": of.bytes_done,
        "transferred": of.bytes_done + moving,
        "instant": instant,
    }


class JobRows:
    """The caller's own jobs (``workers.api.lists.Rows``)."""

    def __init__(self, who: Who, *, later: bool) -> None:
        self._who, self._later = who, later

    def after(self, row_id: int, most: int) -> list[Job]:
        return list(own(self._who).filter(pk__gt=row_id).order_by("pk")[:most])

    def nth(self, number: int) -> int | None:
        found = own(self._who).order_by("pk").values_list("pk", flat=True)[number - 1 : number + 1]
        return found[0] if len(found) == 2 else None

    def row_id(self, row: Job) -> int:
        return row.pk

    def render(self, rows: Sequence[Job]) -> Iterator[dict[str, Any]]:
        return (wire.render_counted(row, later=self._later) for row in rows)


class Elements:
    """Elements of a job by number; an id of ``Rows`` is the number and one, as numbers begin at 0."""

    def __init__(self, of: Job) -> None:
        self.job, self._most = of, wire.elements_of(of)

    def after(self, row_id: int, most: int) -> list[Element]:
        rows = Element.objects.filter(job=self.job, number__gte=row_id, number__lt=self._most)
        return list(rows.order_by("number")[:most])

    def nth(self, number: int) -> int | None:
        return number if number < self._most else None

    def row_id(self, row: Element) -> int:
        return row.number + 1
