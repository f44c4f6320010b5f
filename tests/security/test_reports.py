"""A pull worker's report is parsed as a stream, whatever is in it.

No number ends or holds the process, nothing that is nested or unknown grows in memory.
"""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from itertools import repeat

import pytest
from rest_framework.exceptions import ParseError

from workers.vocabulary.errors import InvalidInput
from workqueue.models.jobs import Type
from workqueue.pull import bodies

REPORT = b'{"returncode":0,"host":"h","log":"","timestamp":"t"'


def _with_listing(entry: bytes) -> bytes:
    return REPORT + b',"listing":{"/d":[' + entry + b"]}}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"returncode":' + b"1" * 5_000 + b"}", id="an integer that Python refuses"),
        pytest.param(REPORT + b',"more":' + b"1" * 5_000 + b"}", id="the same where nobody looks"),
        pytest.param(_with_listing(b'{"name":"a","st_size":1e3000000}'), id="a decimal of a million digits"),
        pytest.param(_with_listing(b'{"name":"a","st_mtime":1e300}'), id="one of 300"),
        pytest.param(REPORT + b',"host":' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="a deep host"),
    ],
)
def test_numbers_and_depth_are_refused(body: bytes) -> None:
    with pytest.raises((ParseError, InvalidInput)):
        bodies.parse(BytesIO(body))


def test_what_is_not_asked_for_costs_nothing() -> None:
    body = REPORT + b',"more":[' + b",".join(repeat(b"[]", 300_000)) + b'],"deep":' + b"[" * 5_000
    tracemalloc.start()
    try:
        bodies.parse(BytesIO(body + b"]" * 5_000 + b"}")).spool.close()
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_the_names_of_one_folder_are_told_in_pieces() -> None:
    names = [f"f{number}" for number in range(2_500)]
    entry = '{"name":"%s","st_mode":33188,"st_size":9007199254740992}'
    told = bodies.parse(BytesIO(_with_listing(",".join(entry % name for name in names).encode())))
    with told.spool:
        lines = [line for _, line in told.lines(Type.COPY)]
    assert [(len(line["e"]), line["first"], line["last"]) for line in lines] == [
        (1_000, True, False),
        (1_000, False, False),
        (500, False, True),
    ]
    assert [each[0] for line in lines for each in line["e"]] == names
    assert {each[2] for line in lines for each in line["e"]} == {9_007_199_254_740_992}
    assert told.names == 2_500
