"""Listings as clients see them, streamed from what a LIST's attempt reported. Memory is a few pieces of it.

The report's lines are described in ``workers.vocabulary.transfers.orders``. Must not import views.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from workers.api.lists import as_text
from workqueue.models import ListingPart

#: More names than that are left out of lists of elements.
SHORT: Final = 10_000
#: Pieces that are read at once.
_PIECES: Final = 4
#: As a report's line has them.
_FIELDS: Final = (
    *("name", "st_mode", "st_size", "st_mtime", "st_nlink", "st_uid", "st_gid", "st_atime", "st_ctime"),
)
_LATER: Final = (*("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime", "st_mtime", "st_ctime"),)
_ENTRIES: Final = ("st_size", "st_mode", "st_mtime")

Entry = Callable[[Sequence[Any], bool], object]


def names(job_id: int, number: int, attempt: int, asked: str) -> Iterator[str]:
    """{directory as asked: [names]}, as v1.0 has it."""
    return _folders(job_id, number, attempt, _as_asked(asked, asked), lambda entry, _: entry[0])


def entries(job_id: int, number: int, attempt: int, asked: str) -> Iterator[str]:
    """{directory as asked: [{name, st_size, st_mode, st_mtime}]}, beside the names."""
    return _folders(job_id, number, attempt, _as_asked(asked, asked), _some(_ENTRIES))


def later(job_id: int, number: int, attempt: int, asked: str) -> Iterator[str]:
    """{directory without a trailing slash: [{name, st_mode, ... st_ctime}]}, as v1.1 has it."""
    return _folders(job_id, number, attempt, _as_asked(asked, asked.rstrip("/")), _some(_LATER))


def _as_asked(asked: str, shown: str) -> Callable[[str], str]:
    """A folder's key: the one that was asked for is ``shown`` so, the others as they are."""
    top = asked.rstrip("/") or "/"
    return lambda folder: shown if folder == top else folder


def _some(wanted: Sequence[str]) -> Entry:
    def entry(told: Sequence[Any], escaped: bool) -> dict[str, Any]:
        known = dict(zip(_FIELDS, told, strict=False))
        found = {"name": told[0], **{name: int(known.get(name) or 0) for name in wanted}}
        return {**found, "escaped": True} if escaped else found

    return entry


def _folders(
    job_id: int, number: int, attempt: int, key: Callable[[str], str], entry: Entry
) -> Iterator[str]:
    yield "{"
    between = ""
    for line in _lines(job_id, number, attempt):
        if line.get("first"):
            yield f"{between}{as_text(key(line['d']))}:["
            between = ""
        escaped = bool(line.get("x"))
        told = as_text([entry(each, escaped) for each in line["e"]])[1:-1]
        if told:
            yield between + told
            between = ","
        if line.get("last"):
            yield "]"
            between = ","
    yield "}"


def _lines(job_id: int, number: int, attempt: int) -> Iterator[dict[str, Any]]:
    """The report's lines of folders, in order."""
    last = -1
    while parts := list(
        ListingPart.objects.filter(job_id=job_id, number=number, attempt=attempt, report__gt=last)
        .order_by("report")
        .values_list("report", "data")[:_PIECES]
    ):
        last = parts[-1][0]
        for _, data in parts:
            for line in zlib.decompress(data).splitlines():
                found = json.loads(line)
                if found.get("r") == "folder":
                    yield found
