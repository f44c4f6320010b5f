"""Downloading the output of a container: the file, its name, what is chosen and what is refused."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from tests.contracts.jobs.conftest import (
    CONTAINER,
    Api,
    Stage,
    body,
    error,
)
from tests.support.pruned import let_output_go
from workers.models import LogChunk


def result(api: Api, job: dict[str, Any], executor: str, ordinal: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = api.inspect(job, executor)["Result"][ordinal]
    return found


def test_a_log_is_a_file_with_a_dated_name(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    stage.run(job, executor, output=b"\x00\xffline\n" * 100_000)
    for query in ("ContainerId=web", f"ContainerId={CONTAINER}"):
        answer = api.log(job, executor, query)
        assert answer.getvalue() == b"\x00\xffline\n" * 100_000
        assert answer.headers["Content-Type"].startswith("text/plain")
        asked = query.partition("=")[2]
        assert re.fullmatch(
            rf'attachment; filename="job-container-{asked}-\d{{4}}-\d\d-\d\d-\d\d:\d\d:\d\d\.log"',
            answer.headers["Content-Disposition"],
        )
    head = api.send("HEAD", f"/api/jobs/{job['JobId']}/log/{executor}?ContainerId=web")
    assert (head.status_code, head.getvalue()) == (200, b"")


def test_a_log_of_what_runs_is_what_there_is(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    assert api.log(job, executor, "ContainerId=web").getvalue() == b""
    run = stage.claim(job, executor)
    stage.begin(run)
    stage.write(run, b"half")
    assert api.log(job, executor, "ContainerId=web").getvalue() == b"half"


def test_logs_of_containers_that_were_not_meant(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    assert error(api.log(job, executor, ""), 400)[0] == "invalid_ContainerId"
    assert error(api.log(job, executor, "ContainerId="), 400)[0] == "invalid_ContainerId"
    for query in ("ContainerId=db", "ContainerId=we", "ContainerId=web&NodeId=n2"):
        found = error(api.log(job, executor, query), 404)
        assert found == ("container_id_not_found", query.partition("=")[2].partition("&")[0])


def test_of_several_results_of_a_container_the_first_or_that_of_the_node(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"), ("web", "n2"))
    stage.run(job, executor, 0, output=b"one")
    stage.run(job, executor, 1, output=b"two")
    for query, wanted in (("", b"one"), ("&NodeId=", b"one"), ("&NodeId=n1", b"one"), ("&NodeId=n2", b"two")):
        assert api.log(job, executor, f"ContainerId=web{query}").getvalue() == wanted


def test_a_containers_name_cannot_break_out_of_the_header(api: Api, stage: Stage) -> None:
    job = api.job()
    nasty = 'a"; x="\r\nSet-Cookie: b=ü/../'
    executor = api.start(job, (nasty, "n1"))
    answer = api.log(job, executor, f"ContainerId={quote(nasty)}")
    name = answer.headers["Content-Disposition"].removeprefix("attachment; filename=")
    assert name.startswith('"job-container-a___x____Set-Cookie__b___.._-')
    assert "Set-Cookie" not in answer.headers


def test_a_log_leaves_out_the_middle_and_says_so(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"))
    run = stage.run(job, executor, output=b"head")
    LogChunk.objects.create(run_id=run.lease.run_id, attempt=1, stream=1, offset=1000, data=b"tail")
    text = api.log(job, executor, "ContainerId=web").getvalue().decode()
    assert text.startswith("head\n[... 996 bytes left out")
    assert text.endswith("]\ntail")
    assert result(api, job, executor)["Output"] == "headtail"


def test_output_that_retention_has_deleted(api: Api, stage: Stage) -> None:
    job = api.job()
    executor = api.start(job, ("web", "n1"), ("db", "n1"))
    run = stage.run(job, executor, output=b"much")
    let_output_go(run.lease.run_id, stage.run(job, executor, 1).lease.run_id)
    answer = api.log(job, executor, "ContainerId=web")
    text = answer.getvalue().decode()
    assert (answer.status_code, answer.headers["X-Log-Pruned"]) == (200, "true")
    assert text.startswith("[... deleted on ")
    assert [result(api, job, executor, number)["Output"] for number in (0, 1)] == [text, ""]


def test_bodies_that_are_no_objects(api: Api) -> None:
    assert body(api.send("POST", "/api/jobs", b"[1]", "application/json"))["id"] == "invalid_body"
