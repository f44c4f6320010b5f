"""Large jobs: listings and lists of elements are streamed, memory does not grow with them."""

from __future__ import annotations

import json
import zlib
from typing import Any

import psutil
import pytest
from django.db import connection

from tests.contracts.workqueue.conftest import FILE, V11, Api, Filled, at
from workqueue.models import ElementAttempt, ListingPart
from workqueue.models.jobs import Status, Type

MIB = 1024 * 1024


def resident() -> int:
    """Memory of this process, in bytes."""
    return psutil.Process().memory_info().rss


def read(answer: Any) -> tuple[int, int, int]:
    """(bytes, those of the largest piece, growth of memory) of reading an answer piece by piece."""
    assert answer.status_code == 200
    before = resident()
    size = largest = highest = 0
    for number, piece in enumerate(answer.streaming_content):
        size, largest = size + len(piece), max(largest, len(piece))
        if number % 50 == 0:
            highest = max(highest, resident())
    return size, largest, highest - before


def fill_listing(filled: Filled, names: int) -> None:
    """One folder of so many names, 1,000 in a line, 20 lines in a piece."""
    filled.element(0, Type.LIST, Status.DONE, (Status.DONE, "x"), src_filepath="d")
    parts = []
    for begin in range(0, names, 20_000):
        lines = []
        for offset in range(begin, begin + 20_000, 1000):
            told = [[f"a file called {number}", *FILE] for number in range(offset, offset + 1000)]
            line = {"r": "folder", "n": 0, "d": "d", "e": told}
            ends = {"first": True} if offset == 0 else {}
            ends |= {"last": True} if offset + 1000 == names else {}
            lines.append(json.dumps({**line, **ends}))
        data = zlib.compress("\n".join(lines).encode(), 1)
        parts.append(ListingPart(job=filled.job, number=0, attempt=1, report=begin, names=20_000, data=data))
    ListingPart.objects.bulk_create(parts)
    ElementAttempt.objects.update(listing_count=names)


def check(api: Api, site: int, names: int, elements: int) -> None:
    filled = Filled(api.job(src_siteid=site, src_filepath="d")["id"])
    fill_listing(filled, names)
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO workqueue_element (job_id, number, type, src_filepath, dst_filepath, max_tries,
                   status, attempts, size)
               SELECT %s, n, 1, 'd/' || n, 'e/' || n, 2, 1, 0, 5 FROM generate_series(1, %s) n""",
            [filled.job.pk, elements - 1],
        )
    filled.count(num_done=elements)
    for path, least in (
        (at(filled, "/elements/0"), names * 20),
        (at(filled, "/elements/0/output"), names * 80),
        (V11 + at(filled, "/elements/0"), names * 100),
        (at(filled, "/elements"), min(elements, 100_000) * 150),
        (at(filled, "/output"), names * 80),
    ):
        size, largest, grown = read(api.get(path))
        assert size > least, path
        assert largest < MIB, path
        assert grown < 60 * MIB, (path, grown)


def test_memory_is_flat(api: Api, site: int) -> None:
    check(api, site, 60_000, 3_000)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_memory_is_flat_for_a_million_names(api: Api, site: int) -> None:
    check(api, site, 1_000_000, 200_000)
