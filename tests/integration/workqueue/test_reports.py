"""What a run reports is entered once, in few statements, and nothing in it can do harm."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.integration.workqueue.scene import (
    FOLDER,
    Mover,
    Scene,
    batch_of,
    begin,
    elements,
    end,
    entry,
    folder,
    settle,
    statuses,
    wire,
)
from workers.vocabulary.transfers.names import name_from_wire
from workqueue import book
from workqueue.models import Element, ElementAttempt, Job, Link, ListingPart
from workqueue.models.jobs import Status, Type


def facts(job: Job) -> list[Any]:
    """All that a report changes of a job."""
    job.refresh_from_db()
    unstable = {"changed_at", "finished_at", "not_before", "ended_at"}
    rows: list[Any] = [
        *Job.objects.filter(pk=job.pk).values(),
        *Element.objects.filter(job=job).order_by("number").values(),
        *ElementAttempt.objects.filter(job=job).order_by("number", "attempt").values(),
        *ListingPart.objects.filter(job=job).order_by("number", "report").values("report", "names"),
        *Link.objects.values("succeeded", "failed", "moved"),
    ]
    return [{key: value for key, value in row.items() if key not in unstable} for row in rows]


def resend(mover: Mover, until: int) -> None:
    """Everything from every byte on, as a node does that does not know what is entered."""
    starts = [0]
    for line in mover.sent:
        starts.append(starts[-1] + len(line))
    for index, start in enumerate(starts):
        if start <= until and index < len(mover.sent):
            mover.enter(start, mover.sent[index:])


def test_a_report_that_comes_again_counts_nothing_twice(scene: Scene) -> None:
    job = scene.job(Type.COPY)
    (mover,) = scene.movers()
    lines = [
        begin(0),
        folder("/tree", entry("a"), entry("b"), entry("sub", FOLDER), last=False),
        folder("/tree", entry("c"), first=False),
        folder("/tree/sub"),
    ]
    for line in lines:
        mover.report(line)
        before = facts(job)
        resend(mover, book.reported_until(mover.lease))
        assert facts(job) == before
    mover.report(end(0, names=4))
    assert statuses(job) == [Status.DONE, *[Status.NEW] * 4]
    resend(mover, book.reported_until(mover.lease))
    mover.finish()
    (copier,) = scene.movers()
    assert book.reported_until(copier.lease) == 0
    for line in (begin(1, size=3), end(1, moved=3), end(2, ok=False), end(3, moved=3), end(4)):
        copier.report(line)
        before = facts(job)
        resend(copier, book.reported_until(copier.lease))
        assert facts(job) == before
    assert book.reported_until(copier.lease) == sum(map(len, copier.sent))
    link = Link.objects.get()
    assert (link.succeeded, link.failed, link.moved) == (3, 1, 6)
    copier.finish()
    (last,) = scene.movers()
    assert last.told() == [2]
    last.report(end(2, 2, moved=3))
    job.refresh_from_db()
    assert (job.num_done, job.bytes_done) == (5, 9)


def test_pieces_of_any_size_come_to_the_same(scene: Scene) -> None:
    """However the lines are cut into reports, the books say the same."""
    seen = []
    names = [entry(f"n{number}", FOLDER if number % 7 == 0 else 0o100644, number) for number in range(60)]
    lines = [begin(0)] + [
        folder("/tree", *names[start : start + 10], first=start == 0, last=start == 50)
        for start in range(0, 60, 10)
    ]
    lines.append(end(0, names=60))
    for cut in range(4):
        job = scene.job(Type.COPY)
        (mover,) = [item for item in scene.movers() if batch_of(item).job == job]
        rest = list(lines)
        while rest:
            count = random.randint(1, len(rest)) if cut else 1
            mover.report(*rest[:count])
            del rest[:count]
        mover.finish()
        seen.append([(item.src_filepath, item.dst_filepath, item.size) for item in elements(job)])
    assert seen[1:] == seen[:-1]


@pytest.mark.parametrize(
    "bad",
    [
        b"no json\n",
        b"[1, 2]\n",
        b'{"r": "end"}\n',
        b'{"r": "end", "n": 1}\n',
        b'{"r": "end", "n": "1", "attempt": 1, "ok": true}\n',
        b'{"r": "end", "n": 1, "attempt": 1, "ok": true, "moved": "many"}\n',
        b'{"r": "end", "n": 1, "attempt": 1, "ok": true, "size": 1e400}\n',
        b'{"r": "end", "n": 1, "attempt": 1, "ok": true, "size": 99999999999999999999}\n',
        b'{"r": "end", "n": 99999999999, "attempt": 1, "ok": true}\n',
        b'{"r": "begin", "n": 1, "attempt": 7}\n',
        b'{"r": "move", "n": 1}\n',
        b'{"r": "move", "n": 1, "moved": null}\n',
        b'{"r": "folder", "n": 1, "d": "/", "e": []}\n',
        b'{"r": "dance", "n": 1}\n',
        b'{"r": "note", "text": "hello"}\n',
        b'{"n": 1}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_bad_line_harms_no_other(scene: Scene, bad: bytes) -> None:
    job = scene.opened(scene.job(), folder("/tree", entry("a"), entry("b")))
    (mover,) = scene.movers()
    mover.enter(0, [*wire(end(2, moved=3)), bad])
    assert statuses(job)[2] == Status.DONE
    assert book.reported_until(mover.lease) == len(wire(end(2, moved=3))[0]) + len(bad)
    mover.enter(book.reported_until(mover.lease), wire(end(1, moved=3)))
    assert statuses(job) == [Status.DONE] * 3


def test_text_that_no_database_takes(scene: Scene) -> None:
    job = scene.job(Type.LIST)
    (mover,) = scene.movers()
    mover.enter(0, [b'{"r": "end", "n": 0, "attempt": 1, "ok": true, "log": "a\\u0000b\\ud800c"}\n'])
    assert statuses(job) == [Status.DONE]
    assert "ab?c" in ElementAttempt.objects.get().log


def test_a_listing_of_which_a_line_is_missing_is_no_listing(scene: Scene) -> None:
    """Half a tree is never taken for a whole one."""
    job = scene.job(Type.COPY)
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", entry("a"), entry("sub", FOLDER)))
    bad = json.dumps(folder("/tree/sub", entry("nul\0"))).encode() + b"\n"
    mover.sent.append(bad)
    mover.enter(book.reported_until(mover.lease), [bad])
    mover.report(end(0, names=3))
    mover.finish()
    assert elements(job)[0].status == Status.SUBMITTED
    assert "3 names, 2 of them were reported" in ElementAttempt.objects.get().log
    settle()
    assert statuses(job) == [Status.SUBMITTED]
    assert not ListingPart.objects.exists()
    scene.opened(job, folder("/tree", entry("a"), entry("sub", FOLDER)), folder("/tree/sub"), attempt=2)
    assert statuses(job) == [Status.DONE, Status.NEW, Status.NEW]


def test_lines_that_are_missing_are_not_passed_over(scene: Scene) -> None:
    scene.job(Type.LIST)
    (mover,) = scene.movers()
    with pytest.raises(ValueError, match="entered is up to 0"):
        mover.enter(10, wire(end(0, names=0)))


def test_elements_of_others_are_left_alone(scene: Scene) -> None:
    first, second = scene.job(Type.LIST), scene.job(Type.LIST)
    (one, two) = scene.movers()
    one.report(end(5), end(0, names=0), end(0, names=0))
    assert (statuses(first), statuses(second)) == ([Status.DONE], [Status.SUBMITTED])
    assert ElementAttempt.objects.count() == 1
    two.report(end(0, names=0))


def test_thousands_of_small_files_cost_a_few_statements(scene: Scene) -> None:
    job = scene.opened(scene.job(), folder("/tree", *(entry(f"f{each}") for each in range(8000))))
    (mover, *_) = scene.movers()
    numbers = mover.told()
    assert len(numbers) == 4000
    lines = wire(*(end(number, moved=3, elapsed=0.1, checksum="adler32:1") for number in numbers))
    with CaptureQueriesContext(
        connection,
    ) as asked:
        mover.enter(0, lines)
    assert len(asked) <= 14, [query["sql"][:100] for query in asked]
    job.refresh_from_db()
    assert job.num_done == 4001


def test_names_that_are_no_utf8(scene: Scene) -> None:
    """Both paths of such an element are in the escaped form, byte for byte."""
    job = scene.job(Type.COPY, "/t\\x", "/c\\y")
    lines = (
        folder("/t\\x", entry("plain"), entry("back\\slash")),
        folder("/t\\\\x/s\\xff", entry("a\\\\b"), x=True),
        folder("/t\\\\x", entry("bad\\xfe"), x=True),
    )
    job = scene.opened(job, *lines)
    paths = [
        (
            name_from_wire(item.src_filepath, item.escaped),
            name_from_wire(item.dst_filepath or "", item.escaped),
        )
        for item in elements(job)[1:]
    ]
    assert paths == [
        (b"/t\\x/plain", b"/c\\y/plain"),
        (b"/t\\x/back\\slash", b"/c\\y/back\\slash"),
        (b"/t\\x/s\xff/a\\b", b"/c\\y/s\xff/a\\b"),
        (b"/t\\x/bad\xfe", b"/c\\y/bad\xfe"),
    ]
    assert [item.escaped for item in elements(job)] == [False, False, False, True, True]


def test_a_path_that_was_asked_for_in_the_escaped_form(scene: Scene) -> None:
    job = scene.job(Type.REMOVE, "/a\\xff", escaped=True)
    job = scene.opened(job, folder("/a\\xff", entry("b"), x=True))
    assert [(item.src_filepath, item.escaped) for item in elements(job)[1:]] == [
        ("/a\\xff/b", True),
        ("/a\\xff/", True),
    ]


@pytest.mark.parametrize(
    ("src", "dst", "top", "expected"),
    [
        ("/", "/copy", "/", [("/a", "/copy/a"), ("/s/b", "/copy/s/b")]),
        ("~", "~/copy", "~", [("~/a", "~/copy/a"), ("~/s/b", "~/copy/s/b")]),
        ("d", "c/", "d", [("d/a", "c/a"), ("d/s/b", "c/s/b")]),
        ("/d//", "/", "/d", [("/d/a", "/a"), ("/d/s/b", "/s/b")]),
    ],
)
def test_tops_of_every_form(scene: Scene, src: str, dst: str, top: str, expected: list[Any]) -> None:
    below = "/s" if top == "/" else f"{top}/s"
    job = scene.opened(
        scene.job(Type.COPY, src, dst),
        folder(top, entry("a"), entry("s", FOLDER)),
        folder(below, entry("b")),
    )
    assert [(item.src_filepath, item.dst_filepath) for item in elements(job)[1:]] == expected


def test_an_empty_tree_is_one_folder(scene: Scene) -> None:
    job = scene.opened(scene.job(Type.COPY, "/tree", "/copy"), folder("/tree"))
    assert [(item.src_filepath, item.dst_filepath, item.size) for item in elements(job)[1:]] == [
        ("/tree/", "/copy/", 0)
    ]


def test_what_a_failure_leaves_is_known_to_the_next_try(scene: Scene) -> None:
    job = scene.opened(scene.job(max_tries=3), folder("/tree", entry("a")))
    (mover,) = scene.movers()
    mover.report(begin(1, part=True, version="v1"), end(1, ok=False, part=True))
    mover.finish()
    (again,) = scene.movers()
    orders = again.orders()
    assert orders is not None
    order = orders["elements"][0]
    assert (order["attempt"], order["part"], order["version"], order["committed"]) == (2, 1, "v1", True)
    again.report(end(1, 2, ok=False, part=False))
    again.finish()
    (last,) = scene.movers()
    orders = last.orders()
    assert orders is not None
    order = orders["elements"][0]
    assert (order["attempt"], order["part"], order["version"], order["last"]) == (3, None, "", True)
    last.report(end(1, 3, ok=False))
    job.refresh_from_db()
    assert job.finished_at is not None
    assert [attempt.number for attempt in ElementAttempt.objects.filter(number=1)] == [1, 1, 1]


def test_a_folder_that_is_not_below_what_was_asked_for_is_refused(scene: Scene) -> None:
    job = scene.job(Type.REMOVE, "/tree")
    (mover,) = scene.movers()
    mover.report(folder("/other", entry("a"), entry("b")), end(0, names=2))
    assert statuses(job) == [Status.SUBMITTED]
    assert "2 names, 0 of them were reported" in ElementAttempt.objects.get().log
