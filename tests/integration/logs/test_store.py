"""The chunk table: what goes in comes out, whatever is repeated, overlaps or is missing."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection, transaction

from tests.integration.logs.log_runs import STDERR, STDOUT, LoggedRun, running
from workers.logs import store
from workers.models import LogChunk

pytestmark = pytest.mark.django_db(transaction=True)


def insert(*rows: store.Row) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        store.insert(cursor, rows)


def everything(run_id: int, attempt: int, stream: int | None = None, **options: int) -> bytes:
    return b"".join(store.read(run_id, attempt, stream, **options))  # type: ignore[arg-type]


def gap(length: int) -> bytes:
    return b"<%d>" % length


def test_output_comes_back_by_stream_and_attempt() -> None:
    insert(
        (7, 1, STDOUT, 0, b"out "),
        (7, 1, STDERR, 0, b"err"),
        (7, 1, STDOUT, 4, b"more"),
        (7, 2, STDOUT, 0, b"2"),
    )

    assert everything(7, 1, STDOUT) == b"out more"
    assert everything(7, 1, STDERR) == b"err"
    assert everything(7, 1) == b"out moreerr"
    assert everything(7, 2) == b"2"
    assert everything(8, 1) == b""
    assert store.size(7, 1) == {STDOUT: 8, STDERR: 3}
    assert store.shipped(7, 3) == {STDOUT: 0, STDERR: 0}


def test_repeating_changes_nothing_and_the_longer_chunk_stays() -> None:
    insert((7, 1, STDOUT, 0, b"abc"))
    insert((7, 1, STDOUT, 0, b"abcdef"), (7, 1, STDOUT, 0, b"ab"))
    insert((7, 1, STDOUT, 0, b"abc"))
    insert()

    assert everything(7, 1) == b"abcdef"
    assert LogChunk.objects.count() == 1


def test_chunks_that_overlap_are_joined_without_repeating() -> None:
    insert((7, 1, STDOUT, 0, b"0123456"), (7, 1, STDOUT, 4, b"456789"))

    assert everything(7, 1) == b"0123456789"
    assert everything(7, 1, STDOUT, start=5, end=9) == b"5678"


def test_any_byte_is_kept() -> None:
    data = bytes(range(256)) * 5
    insert((7, 1, STDOUT, 0, data))

    assert everything(7, 1) == data


def test_every_range_is_exact() -> None:
    rng = random.Random(2)
    data = rng.randbytes(500)
    cuts = sorted({0, *rng.sample(range(500), 30), 500})
    insert(*((7, 1, STDOUT, a, data[a:b]) for a, b in pairwise(cuts)))

    for _ in range(100):
        start, end = sorted(rng.sample(range(501), 2))
        assert everything(7, 1, STDOUT, start=start, end=end) == data[start:end]


def test_what_was_left_out_is_told_in_its_place() -> None:
    insert((7, 1, STDOUT, 0, b"head"), (7, 1, STDOUT, 100, b"tail"), (7, 1, STDERR, 50, b"e"))

    assert b"".join(store.read(7, 1, gap=gap)) == b"head<96>tail<50>e"
    assert everything(7, 1) == b"headtaile"
    assert everything(7, 1, STDOUT, start=2, end=102) == b"adta"


def test_the_middle_is_deleted_by_whole_chunks() -> None:
    insert(*((7, 1, STDOUT, at, b"x" * 10) for at in range(0, 100, 10)), (7, 1, STDERR, 30, b"e"))

    with transaction.atomic(), connection.cursor() as cursor:
        assert store.delete_middle(cursor, 7, 1, STDOUT, 15, 75) == 5

    kept = LogChunk.objects.filter(stream=STDOUT).order_by("offset").values_list("offset", flat=True)
    assert list(kept) == [0, 10, 70, 80, 90]
    assert store.size(7, 1) == {STDOUT: 100, STDERR: 31}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((0, 4), (0, 4)),
        ((2, 200), (2, 4)),
        ((4, 200), (100, 104)),
        ((50, 90), (50, 50)),
        ((102, 103), (102, 103)),
    ],
)
def test_contiguous_finds_the_first_part_that_exists(asked: tuple[int, int], found: tuple[int, int]) -> None:
    insert((7, 1, STDOUT, 0, b"he"), (7, 1, STDOUT, 2, b"ad"), (7, 1, STDOUT, 100, b"tail"))

    assert store.contiguous(7, 1, STDOUT, *asked) == found


def test_a_rolled_back_transaction_leaves_nothing() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        store.insert(cursor, [(7, 1, STDOUT, 0, b"no")])
        transaction.set_rollback(True)

    assert everything(7, 1) == b""


def test_many_small_chunks_are_read_in_few_queries() -> None:
    run: LoggedRun = running()
    rows = [(run.id, 1, STDOUT, at * 20, b"%019d\n" % at) for at in range(5000)]
    for start in range(0, 5000, 1000):
        insert(*rows[start : start + 1000])

    queries: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        queries.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        pieces = list(store.read(run.id, 1, STDOUT))

    assert b"".join(pieces) == b"".join(row[4] for row in rows)
    assert len(queries) <= 7


def test_reading_keeps_memory_flat_and_holds_no_connection() -> None:
    piece = random.Random(1).randbytes(256 * 1024)
    for at in range(0, 32 * 1024 * 1024, 4 * len(piece)):
        insert(*((7, 1, STDOUT, at + step * len(piece), piece) for step in range(4)))

    tracemalloc.start()
    total = 0
    for part in store.read(7, 1, STDOUT):
        total += len(part)
        assert connection.connection is None  # given back while the receiver takes its time
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert total == 32 * 1024 * 1024
    assert peak < 8 * 1024 * 1024
