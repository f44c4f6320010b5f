"""Reading jobs, elements, outputs and statuses: the seed's examples field by field, and v1.1's shapes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.contracts.workqueue.conftest import LATER_FILE, LOG, V11, Api, Filled, at, body, error, folder, ok
from workqueue.jobs import examples
from workqueue.models import Batch, Element, Job
from workqueue.models.jobs import Status, Type

DONE, FAILED = Status.DONE, Status.FAILED
AT = datetime(2012, 3, 21, 13, 35, tzinfo=UTC)


@pytest.fixture
def copied(api: Api, site: int) -> Filled:
    """The seed's job 12345 with its number: a listing, a copy that took two attempts, one that failed."""
    made = api.job(
        "copy", src_siteid=site, dst_siteid=site, src_filepath="~/file1.txt", dst_filepath="~/file2.txt"
    )
    filled = Filled(made["id"])
    filled.element(0, Type.LIST, DONE, (DONE, "listed"), src_filepath="root", changed_at=AT)
    filled.listing(0, folder("root", "file1", "file2"))
    filled.element(
        1, Type.COPY, DONE, (FAILED, "first"), (DONE, LOG), src_filepath="~/file1.txt",
        dst_filepath="~/file2.txt", size=123354523, changed_at=AT, transferred=1000, instant=5.0, elapsed=4.0,
    )  # fmt: skip
    filled.element(2, Type.COPY, Status.NEW, dst_filepath="b", size=7)
    filled.count(num_done=2, num_new=1)
    Job.objects.filter(pk=filled.job.pk).update(changed_at=AT, log_uid="somelonghash")
    return filled


def test_a_job_of_the_seed(api: Api, copied: Filled) -> None:
    job = copied.job
    named = {"id": job.pk, "user_id": job.user_id, "src_siteid": job.source_id, "dst_siteid": job.target_id}
    expected = {**examples.JOB_EXAMPLE, **named, "status": "SUBMITTED", "timestamp": examples.STAMP}
    assert ok(api.get(at(copied))) == expected
    assert ok(api.get(V11 + at(copied))) == expected
    assert list(ok(api.get(at(copied)))) == list(examples.JOB_EXAMPLE)
    counts = {"num_elements": 3, "num_new": 1, "num_submitted": 0, "num_running": 0, "num_done": 2}
    assert ok(api.get("/jobs")) == [{**expected, **counts, "num_failed": 0}]
    assert ok(api.get(f"{V11}/jobs/")) == [{**expected, **counts, "num_failed": 0}]
    assert set(ok(api.get("/jobs"))[0]) == {*examples.JOB_EXAMPLE, *examples.COUNTS_EXAMPLE}


def test_no_jobs(api: Api) -> None:
    assert ok(api.get("/jobs")) == ok(api.get(f"{V11}/jobs")) == []


def test_jobs_of_one_path(api: Api, site: int) -> None:
    made = api.job("list", src_siteid=site)
    assert not {"dst_siteid", "dst_filepath"} & set(ok(api.get(f"/jobs/{made['id']}")))
    later = ok(api.get(f"{V11}/jobs/{made['id']}"))
    assert (later["dst_siteid"], later["dst_filepath"]) == (None, None)


def test_status_of_a_job(api: Api, site: int) -> None:
    filled = Filled(api.job(src_siteid=site)["id"])
    for counts, status in (
        ({"num_new": 1}, "SUBMITTED"),
        ({"num_submitted": 1, "num_failed": 5}, "SUBMITTED"),
        ({"num_done": 1, "num_new": 10_000}, "SUBMITTED"),
        ({"num_running": 1, "num_new": 5, "num_failed": 1}, "RUNNING"),
        ({"num_done": 5, "num_failed": 1}, "FAILED"),
        ({"num_done": 5}, "DONE"),
    ):
        filled.count(**counts)
        assert ok(api.get(at(filled, "/status"))) == {"jobid": filled.job.pk, "status": status}
        assert ok(api.get(at(filled)))["status"] == status
        assert ok(api.get("/jobs"))[0]["status"] == status


def test_elements_of_the_seed(api: Api, copied: Filled) -> None:
    expected = {**examples.ELEMENT_EXAMPLE, "job_id": copied.job.pk, "attempts": 2}
    listed = {**examples.LIST_ELEMENT_EXAMPLE, "job_id": copied.job.pk}
    assert ok(api.get(at(copied, "/elements/1"))) == expected
    assert ok(api.get(at(copied, "/elements/0"))) == listed
    found = ok(api.get(at(copied, "/elements")))
    assert found[:2] == [listed, expected]
    assert (found[2]["status"], found[2]["listing"], found[2]["size"]) == ("NEW", None, 7)
    assert set(expected) == set(examples.ELEMENT_EXAMPLE)


def test_elements_of_the_later_client(api: Api, copied: Filled) -> None:
    found = ok(api.get(V11 + at(copied, "/elements")))
    every = {*examples.ELEMENT_EXAMPLE, "monitoring_info"}
    assert all(set(element) == every for element in found)
    listing = {"root": [{"name": name, **LATER_FILE} for name in ("file1", "file2")]}
    assert (found[0]["listing"], found[0]["dst_filepath"], found[0]["size"]) == (listing, None, None)
    assert found[1]["monitoring_info"] == {
        "transferred": 1000, "average": 250.0, "instant": 5.0, "elapsed": 4.0
    }  # fmt: skip
    assert (found[1]["listing"], found[2]["monitoring_info"]) == (None, None)
    for number, element in enumerate(found):
        assert ok(api.get(V11 + at(copied, f"/elements/{number}"))) == element


def test_status_of_an_element(api: Api, copied: Filled) -> None:
    known = {"transferred": 1000, "average": 250.0, "instant": 5.0, "elapsed": 4.0}
    for base in ("", V11):
        assert ok(api.get(base + at(copied, "/elements/1/status"))) == {
            "jobid": copied.job.pk, "elementid": 1, "status": "DONE", "attempts": 2, **known
        }  # fmt: skip
        unknown = dict.fromkeys(("transferred", "average", "instant", "elapsed"), "N/A")
        assert ok(api.get(base + at(copied, "/elements/2/status"))) == {
            "jobid": copied.job.pk, "elementid": 2, "status": "NEW", "attempts": 0, **unknown
        }  # fmt: skip
    Element.objects.filter(job=copied.job, number=2).update(transferred=50, elapsed=0.0)
    assert ok(api.get(at(copied, "/elements/2/status")))["average"] == 0.0


def test_outputs_of_the_seed(api: Api, copied: Filled) -> None:
    names = {"root": ["file1", "file2"]}
    some = {"st_size": 10, "st_mode": 33188, "st_mtime": 1332336900}
    entries = {"root": [{"name": name, **some} for name in ("file1", "file2")]}
    job = {"jobid": copied.job.pk}
    first = {**job, "elementid": 0, "attempt": 1, "type": "LIST", "status": "DONE", "log": "listed"}
    second = {**job, "elementid": 1, "attempt": 2, "type": "COPY", "status": "DONE", "log": LOG}
    listed = {**first, "listing": names, "entries": entries}
    assert ok(api.get(at(copied, "/output"))) == [listed, second]
    assert ok(api.get(at(copied, "/elements/0/output"))) == listed
    assert ok(api.get(at(copied, "/elements/1/output"))) == second
    failed = {**second, "attempt": 1, "status": "FAILED", "log": "first"}
    for attempt, expected in ((1, failed), (2, second), (-1, second), (-2, failed)):
        assert ok(api.get(at(copied, f"/elements/1/output/{attempt}"))) == expected
    assert set(second) == set(examples.OUTPUT_EXAMPLE)
    assert set(listed) == set(examples.LIST_OUTPUT_EXAMPLE)
    later = {**first, "listing": {"root": [{"name": name, **LATER_FILE} for name in ("file1", "file2")]}}
    assert ok(api.get(V11 + at(copied, "/output"))) == [[later], [failed, second], []]
    assert ok(api.get(V11 + at(copied, "/elements/1/output"))) == [failed, second]
    assert ok(api.get(V11 + at(copied, "/elements/2/output"))) == []
    assert ok(api.get(V11 + at(copied, "/elements/1/output/-2"))) == failed
    assert ok(api.get(V11 + at(copied, "/elements/0/output/1"))) == later


def test_attempts_that_are_not_there(api: Api, copied: Filled) -> None:
    for base in ("", V11):
        for attempt in (
            "0",
            "3",
            "-3",
            "-0",
            str(2**15),
            str(-(2**31)),
            str(10**20),
            "-99999999999999999999",
        ):
            error(api.get(base + at(copied, f"/elements/1/output/{attempt}")), 404)
        for attempt in ("x", "1.0", "1e1", "--1", "%20", "latest"):
            assert "attempt" in error(api.get(base + at(copied, f"/elements/1/output/{attempt}")), 400)
        error(api.get(base + at(copied, "/elements/2/output/1")), 404)
    error(api.get(at(copied, "/elements/2/output")), 404)


def test_what_is_unknown(api: Api, copied: Filled) -> None:
    rests = ("", "/elements", "/output", "/status", "/progress", "/explain")
    for job in ("999999", "0", "-1", "x", str(2**63), str(10**30), "1.0"):
        for rest in (
            *rests,
            "/elements/0",
            "/elements/0/output",
            "/elements/0/status",
            "/elements/0/output/x",
        ):
            error(api.get(f"/jobs/{job}{rest}"), 404)
        for rest in ("/cancel", "/retry"):
            error(api.post(f"/jobs/{job}{rest}"), 404)
    for element in ("3", "-1", "x", str(2**31), str(10**30)):
        for rest in ("", "/status", "/output", "/output/1"):
            error(api.get(at(copied, f"/elements/{element}{rest}")), 404)


def test_elements_of_a_listing_that_has_not_ended_are_not_shown(api: Api, copied: Filled) -> None:
    copied.element(3, Type.COPY, Status.NEW, (DONE, "from before"), dst_filepath="c")
    assert len(ok(api.get(at(copied, "/elements")))) == 3
    assert len(ok(api.get(at(copied, "/output")))) == 2
    assert len(ok(api.get(V11 + at(copied, "/output")))) == 3
    error(api.get(at(copied, "/elements/3")), 404)


def test_progress(api: Api, copied: Filled) -> None:
    batch = Batch.objects.create(job=copied.job, source_id=copied.job.source_id)
    Element.objects.filter(job=copied.job, number=2).update(
        status=Status.RUNNING, batch=batch, transferred=3, instant=2.5, elapsed=1.0
    )
    copied.count(num_done=2, num_running=1)
    Job.objects.filter(pk=copied.job.pk).update(bytes_total=1007, bytes_done=1000)
    assert ok(api.get(at(copied, "/progress"))) == {
        "jobid": copied.job.pk,
        "status": "RUNNING",
        "num_elements": 3,
        "num_new": 0,
        "num_submitted": 0,
        "num_running": 1,
        "num_done": 2,
        "num_failed": 0,
        "bytes_total": 1007,
        "bytes_done": 1000,
        "transferred": 1003,
        "instant": 2.5,
    }


def test_jobs_are_their_users(api: Api, colleague: Api, stranger: Api, operator: Api, copied: Filled) -> None:
    rests = ("", "/status", "/elements", "/elements/1", "/elements/1/output", "/output", "/progress")
    for who in (colleague, stranger):
        assert ok(who.get("/jobs")) == []
        for rest in (*rests, "/explain", "/elements/1/output/1", "/elements/1/status"):
            error(who.get(at(copied, rest)), 404)
        for rest in ("/cancel", "/retry"):
            error(who.post(at(copied, rest)), 404)
    assert ok(operator.get("/jobs")) == []
    for rest in (*rests, "/explain"):
        ok(operator.get(at(copied, rest)))
    assert Job.objects.filter(cancel_requested_at=None).count() == 1


def test_pages(api: Api, site: int, settings: Any) -> None:
    ids = [api.job(src_siteid=site)["id"] for _ in range(5)]
    filled = Filled(ids[0])
    for number in range(5):
        filled.element(number, Type.COPY, DONE, (DONE, "x"), dst_filepath="b")
    filled.count(num_done=5)

    def walk(path: str, key: str) -> list[list[int]]:
        pages = []
        while path:
            answer = api.get(path)
            pages.append([each[key] for each in ok(answer)])
            link = re.fullmatch(r'<http://testserver(.+)>; rel="next"', answer.headers.get("Link", ""))
            path = link[1] if link else ""
        return pages

    assert walk("/jobs?limit=2", "id") == [ids[:2], ids[2:4], ids[4:]]
    assert walk(at(filled, "/elements?limit=2"), "id") == [[0, 1], [2, 3], [4]]
    assert walk(at(filled, "/output?limit=2"), "elementid") == [[0, 1], [2, 3], [4]]
    assert [len(page) for page in ok(api.get(V11 + at(filled, "/output?limit=2")))] == [1, 1]
    for wrong in ("limit=0", "limit=1001", "limit=x", "limit=1&cursor=x"):
        error(api.get(f"/jobs?{wrong}"), 400)
    settings.GANTRY_LIST_CAP = 3
    for path, key, first in (
        ("/jobs", "id", ids[:3]),
        (at(filled, "/elements"), "id", [0, 1, 2]),
        (at(filled, "/output"), "elementid", [0, 1, 2]),
    ):
        answer = api.get(path)
        assert [each[key] for each in ok(answer)] == first
        assert answer.headers["Warning"].startswith("299 ")
        assert answer.headers["Link"].endswith('rel="next"')


def test_lists_ask_the_database_a_fixed_number_of_times(api: Api, site: int) -> None:
    few, many = (Filled(api.job(src_siteid=site)["id"]) for _ in range(2))
    for filled, count in ((few, 2), (many, 40)):
        for number in range(count):
            kind = Type.LIST if number == 0 else Type.COPY
            filled.element(number, kind, DONE, (FAILED, "x"), (DONE, "y"), dst_filepath="b")
        filled.listing(0, folder("d", "a"), attempt=2)
        filled.count(num_done=count)
    for rest in ("/elements", "/output", "/elements/1/output", "/elements/1", "/progress"):
        for base in ("", V11):
            counts = []
            for filled in (few, many):
                body(api.get(base + at(filled, rest)))
                with CaptureQueriesContext(connection) as seen:
                    body(api.get(base + at(filled, rest)))
                counts.append(len(seen))
            assert counts[0] == counts[1] <= 9, (rest, counts)
    with CaptureQueriesContext(connection) as seen:
        assert len(ok(api.get("/jobs"))) == 2
    one = len(seen)
    for _ in range(10):
        api.job(src_siteid=site)
    with CaptureQueriesContext(connection) as seen:
        assert len(ok(api.get("/jobs"))) == 12
    assert len(seen) == one


def test_head_and_options(api: Api, copied: Filled) -> None:
    for rest in ("", "/elements", "/elements/0", "/output", "/elements/0/output"):
        assert api.send("HEAD", at(copied, rest)).status_code == 200
    assert api.send("OPTIONS", "/jobs").headers["Allow"] == "GET, POST, HEAD, OPTIONS"
    assert api.send("OPTIONS", "/copy").headers["Allow"] == "POST, OPTIONS"
