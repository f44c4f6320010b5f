"""Elements with their listings, and what attempts said: values that are streamed. Must not import views.

A value that may be large is an iterator of the pieces of its text (``workers.api.lists.array``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from django.db import connection

from workers.api.lists import array, as_text
from workers.vocabulary.errors import InvalidInput, NotFound
from workqueue.jobs import listings, wire
from workqueue.jobs.reading import Elements
from workqueue.models import Element, ElementAttempt, Job
from workqueue.models.jobs import Status, Type

#: Elements whose attempts are read at once: logs may be long.
BATCH: Final = 100
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,100}", re.ASCII)
_LATEST: Final = """
    SELECT e.number, a.attempt, e.type, e.src_filepath, a.status, a.log
    FROM workqueue_element e
    JOIN LATERAL (SELECT attempt, status, log FROM workqueue_elementattempt
        WHERE job_id = e.job_id AND number = e.number ORDER BY attempt DESC LIMIT 1) a ON true
    WHERE e.job_id = %s AND e.number >= %s AND e.number < %s ORDER BY e.number LIMIT %s
"""
_NTH: Final = """
    SELECT number + 1 FROM workqueue_element
    WHERE job_id = %s AND number < %s AND attempts > 0 ORDER BY number OFFSET %s LIMIT 2
"""


class AttemptFacts(NamedTuple):
    """An ended attempt with what is shown of its element."""

    number: int
    attempt: int
    type: int
    src_filepath: str
    status: int
    log: str


def element(row: Element, *, later: bool) -> Iterator[str]:
    """One element with its listing, however long."""
    done = _done([row]).get(row.number) if wire.has_listing(row) else None
    return _element(row, done, later=later, short=False)


def value(job_id: int, told: AttemptFacts, *, later: bool) -> Iterator[str]:
    """What an attempt said, with its listing."""
    found = {
        "jobid": job_id,
        "elementid": told.number,
        "attempt": told.attempt,
        "type": Type(told.type).name,
        "status": Status(told.status).name,
        "log": told.log,
    }
    if told.type != Type.LIST or told.status != Status.DONE:
        yield as_text(found)
        return
    where = (job_id, told.number, told.attempt, told.src_filepath)
    yield as_text(found)[:-1] + ',"listing":'
    if later:
        yield from listings.later(*where)
    else:
        yield from listings.names(*where)
        yield ',"entries":'
        yield from listings.entries(*where)
    yield "}"


def attempts(row: Element) -> list[AttemptFacts]:
    """The ended attempts of an element, oldest first."""
    rows = ElementAttempt.objects.filter(job_id=row.job_id, number=row.number).order_by("attempt")
    return [_facts(row, each) for each in rows]


def chosen(row: Element, asked: str) -> AttemptFacts:
    """The attempt that a path names: from 1, or from the end (-1 = latest). NotFound, InvalidInput."""
    if not _INTEGER.fullmatch(asked):
        raise InvalidInput(f"attempt is {asked[:40]!r}: it must be a whole number", field="attempt")
    number = int(asked)
    ended = ElementAttempt.objects.filter(job_id=row.job_id, number=row.number).order_by("attempt")
    if number < 0:
        ended = ended.reverse()
        found = next(iter(ended[-number - 1 : -number]), None) if -number < 2**31 else None
    else:
        found = ended.filter(attempt=number).first() if number < 2**15 else None
    if found is None:
        raise NotFound(f"element {row.number} of job {row.job_id} has no attempt {number} that has ended")
    return _facts(row, found)


def many(job_id: int, told: Iterable[AttemptFacts], *, later: bool) -> Iterator[str]:
    """Attempts as an array."""
    yield "["
    yield from array(value(job_id, each, later=later) for each in told)
    yield "]"


class ElementRows(Elements):
    """The elements of a job; long listings are left out (``workers.api.lists.Rows``)."""

    def __init__(self, of: Job, *, later: bool) -> None:
        super().__init__(of)
        self._later = later

    def render(self, rows: Sequence[Element]) -> Iterator[Iterator[str]]:
        done = _done([row for row in rows if wire.has_listing(row)])
        return (_element(row, done.get(row.number), later=self._later, short=True) for row in rows)


class OutputRows:
    """The latest ended attempt of each element that has one, as v1.0 has it."""

    def __init__(self, of: Job) -> None:
        self._job, self._most = of, wire.elements_of(of)

    def after(self, row_id: int, most: int) -> list[AttemptFacts]:
        with connection.cursor() as cursor:
            cursor.execute(_LATEST, [self._job.pk, row_id, self._most, most])
            return [AttemptFacts._make(row) for row in cursor.fetchall()]

    def nth(self, number: int) -> int | None:
        with connection.cursor() as cursor:
            cursor.execute(_NTH, [self._job.pk, self._most, number - 1])
            found = cursor.fetchall()
        return int(found[0][0]) if len(found) == 2 else None

    def row_id(self, row: AttemptFacts) -> int:
        return row.number + 1

    def render(self, rows: Sequence[AttemptFacts]) -> Iterator[Iterator[str]]:
        return (value(self._job.pk, row, later=False) for row in rows)


class LaterOutputRows(Elements):
    """All ended attempts of each element, as v1.1 has them: [] where there is none."""

    def render(self, rows: Sequence[Element]) -> Iterator[Iterator[str]]:
        told: dict[int, list[AttemptFacts]] = defaultdict(list)
        by_number = {row.number: row for row in rows}
        ended = ElementAttempt.objects.filter(job=self.job, number__in=list(by_number))
        for each in ended.order_by("number", "attempt"):
            told[each.number].append(_facts(by_number[each.number], each))
        return (many(self.job.pk, told[row.number], later=True) for row in rows)


def _facts(row: Element, told: ElementAttempt) -> AttemptFacts:
    return AttemptFacts(row.number, told.attempt, row.type, row.src_filepath, told.status, told.log)


def _done(rows: Sequence[Element]) -> dict[int, tuple[int, int]]:
    """Of elements that have a listing: number -> (attempt that made it, how many names), by one query."""
    if not rows:
        return {}
    found = ElementAttempt.objects.filter(
        job_id=rows[0].job_id, number__in=[row.number for row in rows], status=Status.DONE
    )
    told = found.order_by("attempt").values_list("number", "attempt", "listing_count")
    return {number: (attempt, count or 0) for number, attempt, count in told}


def _element(row: Element, done: tuple[int, int] | None, *, later: bool, short: bool) -> Iterator[str]:
    found = wire.render_element(row, later=later)
    if done is None or (short and done[1] > listings.SHORT):
        found["listing"] = None
        if done is not None:
            found["listing_count"] = done[1]
        yield as_text(found)
        return
    where = (row.job_id, row.number, done[0], row.src_filepath)
    yield as_text(found)[:-1] + ',"listing":'
    if later:
        yield from listings.later(*where)
    else:
        yield "["
        yield from listings.names(*where)
        yield "]"
    yield "}"
