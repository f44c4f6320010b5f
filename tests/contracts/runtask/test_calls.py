"""The seed's four calls, field by field: what is sent in which form, what is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs.models import RuntaskJob
from jobs.runtask.errors import SwiftRefused
from tests.contracts.runtask.conftest import BODY, WHO, Api, Asked, Stage, body, error, ok, spec_of
from tests.support.pruned import let_output_go
from workers import services
from workers.logs import following
from workers.models import LogChunk, Run, Secret
from workers.vocabulary.errors import AddressRefused
from workers.vocabulary.states import Reason, State


def test_the_seeds_sequence(api: Api, stage: Stage) -> None:
    """/runtask/, /listjobs/, /job/, /canceljob/ with the keys and types of the document."""
    assert ok(api.get("/listjobs/")) == {"status": True, "empty": True, "jobs": []}
    first = api.run()
    second = api.run()
    assert isinstance(first, str)
    assert ok(api.get("/listjobs/")) == {"status": True, "empty": False, "jobs": [first, second]}
    assert api.job(first) == {
        "job_id": first, "job_done": False, "job_error": False, "status": True, "out": "", "error": "",
    }  # fmt: skip
    text = "total 56\n-rw-rw-r-- 1 techbk techbk   82 Th01  6 23:33 config.py"
    stage.done(first, text.encode())
    assert api.job(first) == {
        "job_id": first, "job_done": True, "error": "", "status": True, "job_error": False,
        "out": text, "process_out": text,
    }  # fmt: skip
    assert ok(api.form("/canceljob/", {"job_id": first})) == {
        "job_id": first, "prevstatus": False, "status": True,
    }  # fmt: skip
    assert ok(api.form("/canceljob/", {"job_id": second})) == {
        "job_id": second, "prevstatus": True, "status": True,
    }  # fmt: skip
    assert error(api.get("/job/?job_id=999999"), 404)[0] == "NotFound"


def test_forms_and_json_and_slashes(api: Api) -> None:
    boundary = "xYz"
    multipart = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in BODY.items()
    )
    multipart = f"{multipart}--{boundary}--\r\n"
    specs = []
    for path in ("/runtask/", "/runtask"):
        for answer in (
            api.form(path, BODY),
            api.post(path, BODY),
            api.send("POST", path, multipart, f"multipart/form-data; boundary={boundary}"),
            api.send("POST", path, str(BODY).replace("'", '"'), "application/x-www-form-urlencoded"),
            api.send("POST", path, str(BODY).replace("'", '"'), "text/plain"),
        ):
            job_id = ok(answer)["job_id"]
            spec = spec_of(job_id)
            del spec["secret_ids"], spec["outputs"]
            specs.append(spec)
    assert all(spec == specs[0] for spec in specs)
    job_id = str(RuntaskJob.objects.latest("pk").pk)
    for path in (f"/job/?job_id={job_id}", f"/job?job_id={job_id}"):
        assert ok(api.get(path))["job_id"] == job_id
    assert ok(api.get("/listjobs")) == ok(api.get("/listjobs/"))


@pytest.mark.parametrize("value", [b"r%C3%A9sum%C3%A9+x.fa", "résumé x.fa".encode()])
def test_names_in_a_form(api: Api, value: bytes) -> None:
    sent = (
        b"user=a&key=canary-key&tenant=t&authurl=http%3A%2F%2Fs.example%2F&container_name=c&file_name="
        + value
    )
    answer = api.send("POST", "/runtask/", sent, "application/x-www-form-urlencoded; charset=utf-8")
    if b"%" in value:
        assert spec_of(ok(answer)["job_id"])["inputs"][0]["url"] == "swift://c/r%C3%A9sum%C3%A9%20x.fa"
    else:
        assert error(answer, 400)[0] == "BadRequest"


def test_cancelling_by_every_spelling(api: Api) -> None:
    sends: list[Callable[[str], Any]] = [
        lambda job: api.form("/canceljob", {"job_id": job}),
        lambda job: api.post("/canceljob/", {"job_id": job}),
        lambda job: api.post("/canceljob/", {"job_id": int(job)}),
        lambda job: api.send("POST", f"/canceljob/?job_id={job}"),
        lambda job: api.post(f"/canceljob?job_id={job}", {}),
    ]
    for send in sends:
        job_id = api.run()
        assert ok(send(job_id)) == {"job_id": job_id, "prevstatus": True, "status": True}
        found = api.job(job_id)
        assert (found["job_done"], found["job_error"]) == (True, True)
        assert found["error"] == found["error_message"] == "Cancelled: before it started"
        assert "process_out" not in found


def test_the_log_names_the_run_of_a_cancel(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    job_id = api.run()
    caplog.clear()
    ok(api.form("/canceljob/", {"job_id": job_id}))
    (line,) = [str(record.msg) for record in caplog.records if "'event': 'request'" in str(record.msg)]
    assert f"'run': {Stage.run_of(job_id).pk}" in line


def test_cancelling_a_running_job(api: Api, stage: Stage) -> None:
    job_id = api.run()
    run = stage.begin(job_id, b"half", b"warned")
    assert ok(api.form("/canceljob/", {"job_id": job_id}))["prevstatus"] is True
    assert api.job(job_id)["job_done"] is False, "its node has to stop it first"
    stage.finish(run, State.CANCELLED, Reason.NONE, "Command was killed by request", 143)
    found = api.job(job_id)
    assert (found["out"], found["error"]) == ("half", "Cancelled: Command was killed by request")
    assert ok(api.form("/canceljob/", {"job_id": job_id}))["prevstatus"] is False


def test_how_a_job_ended(api: Api, stage: Stage) -> None:
    bad, quiet, warned, unstored = (api.run() for _ in range(4))
    stage.failed(bad, Reason.EXIT_CODE, "Command exited with status 3", 3, b"half", b"no such gene")
    found = api.job(bad)
    assert (found["job_done"], found["job_error"], found["out"]) == (True, True, "half")
    assert found["error"] == found["error_message"] == "no such gene"
    stage.failed(quiet, Reason.EXIT_CODE, "Command exited with status 3", 3)
    assert api.job(quiet)["error"] == "Command exited with status 3"
    stage.done(warned, b"ok", b"only a warning")
    found = api.job(warned)
    assert (found["job_error"], found["error"], found["process_out"]) == (False, "only a warning", "ok")
    assert "error_message" not in found
    stage.failed(unstored, Reason.OUTPUT, "results/r: 507 Insufficient Storage", 0, b"all", b"")
    assert api.job(unstored)["error_message"] == "results/r: 507 Insufficient Storage"


def test_output_that_is_no_utf8_and_output_that_was_cut(api: Api, stage: Stage) -> None:
    job_id = api.run()
    run = stage.begin(job_id, b"\xff\x00a")
    assert api.job(job_id)["out"] == "\ufffd\x00a"
    LogChunk.objects.create(run_id=run.lease.run_id, attempt=1, stream=1, offset=1003, data=b"end")
    assert api.job(job_id)["out"].split("\n") == [
        "\ufffd\x00a", "[... 1000 bytes left out: more output than is kept ...]", "end",
    ]  # fmt: skip


def test_output_that_retention_has_deleted(api: Api, stage: Stage) -> None:
    job_id = api.run()
    stage.done(job_id, b"text")
    assert "X-Log-Pruned" not in api.get(f"/job/?job_id={job_id}").headers
    let_output_go(Run.objects.get().pk)
    answer = api.get(f"/job/?job_id={job_id}")
    assert answer.headers["X-Log-Pruned"] == "true"
    assert ok(answer)["process_out"].startswith("[... deleted on ")
    assert ok(answer)["error"] == ""


# --- Waiting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["-1", "x", "1s", "None", "nan", "1e9", "²"])
def test_waits_that_are_none(api: Api, wait: str) -> None:
    job_id = api.run()
    assert error(api.get(f"/job/?job_id={job_id}&wait={wait}"), 400)[0] == "BadRequest"


def test_more_than_the_longest_wait_is_the_longest(api: Api, stage: Stage, monkeypatch: Any) -> None:
    job_id = api.run()
    monkeypatch.setattr("jobs.runtask.reading.WAIT_MOST_S", 0.3)
    begun = time.monotonic()
    assert ok(api.get(f"/job/?job_id={job_id}&wait=86400"))["job_done"] is False
    assert 0.3 <= time.monotonic() - begun < 30
    for wait in ("0", "", "0.0"):
        begun = time.monotonic()
        ok(api.get(f"/job/?job_id={job_id}&wait={wait}"))
    stage.done(job_id)
    assert ok(api.get(f"/job/?job_id={job_id}&wait=60"))["job_done"] is True
    assert following.budget.taken == 0


@pytest.mark.django_db(transaction=True)
def test_a_wait_ends_with_the_job(api: Api, stage: Stage) -> None:
    job_id = api.run()
    run = stage.begin(job_id)

    def end() -> None:
        time.sleep(0.4)  # pace: the job ends while its client waits
        stage.finish(run, State.SUCCEEDED, Reason.NONE, "", 0)
        connection.close()

    ender = threading.Thread(target=end)
    ender.start()
    assert ok(api.get(f"/job/?job_id={job_id}&wait=60"))["job_done"] is True
    ender.join()


def test_too_many_that_wait(api: Api, settings: Any) -> None:
    settings.GANTRY_FOLLOW_LIMIT = 0
    job_id = api.run()
    answer = api.get(f"/job/?job_id={job_id}&wait=5")
    assert error(answer, 503)[0] == "InternalError"
    assert answer.headers["Retry-After"]
    assert ok(api.get(f"/job/?job_id={job_id}"))["job_done"] is False


# --- What is stored ----------------------------------------------------------------------------------


def test_what_the_engine_is_given(api: Api) -> None:
    job_id = api.run(wait_for_input="60")
    run = Stage.run_of(job_id)
    spec = run.spec
    assert (run.family, run.kind, run.name, run.owner_id) == ("runtask", "process", "default", job_id)
    assert spec["argv"][:2] == ["bash", "-c"]
    assert spec["argv"][3:] == ["default", "in/0/reads.fasta"]
    assert spec["version"] == 2
    (given,) = spec["inputs"]
    assert given["url"] == "swift://genomes/reads.fasta"
    assert 0 < given["wait_until"] - time.time() <= 60
    (stored,) = spec["outputs"]
    assert (stored["url"], stored["stream"]) == (f"swift://genomes/{job_id}", "stdout")
    assert (stored["content_type"], stored["make_container"]) == ("text/plain", False)
    assert run.timeout_s == 86_400
    assert run.expires_at is not None
    assert (run.expires_at - run.created_at).total_seconds() == pytest.approx(86_460, abs=5)


def test_the_key_is_nowhere_in_clear(api: Api, capfd: Any) -> None:
    job_id = api.run()
    assert spec_of(job_id)["stores"][0]["key"] == "***"
    assert Secret.objects.filter(run_id=Stage.run_of(job_id).pk, purpose="store").count() == 1
    error(api.form("/runtask/", {**BODY, "wait_for_input": "x"}), 400)
    error(api.send("POST", "/runtask/", '{"key": "canary-key"', "application/json"), 400)
    told = capfd.readouterr()
    assert "canary-key" not in told.out + told.err
    with connection.cursor() as cursor:
        for table in (
            "workers_run",
            "jobs_runtaskjob",
            "workers_runevent",
            "workers_secret",
            "workers_auditrecord",
        ):
            cursor.execute("SELECT to_regclass(%s)", [table])
            if cursor.fetchone()[0] is not None:
                cursor.execute(f"SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t")
                assert "canary-key" not in cursor.fetchone()[0], table


def test_a_retry_has_no_credentials_any_more(api: Api, stage: Stage) -> None:
    job_id = api.run()
    stage.done(job_id)
    answer = api.send("POST", f"/api/v1/runs/{Stage.run_of(job_id).pk}/retry")
    assert answer.status_code == 409
    assert "submit it anew" in answer.json()["error"]["message"]


def test_nothing_is_left_of_a_submission_that_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(submission: Any) -> int:
        raise AddressRefused("no more")

    monkeypatch.setattr(services, "submit", full)
    error(api.form("/runtask/", BODY), 400)
    assert not RuntaskJob.objects.exists()
    assert not Secret.objects.exists()


# --- The Swift at submission -------------------------------------------------------------------------


def test_what_the_swift_is_asked(api: Api, asked: Asked) -> None:
    api.run()
    api.run(wait_for_input="5")
    api.run(container_name="", file_name="a")
    command = {**WHO, "cm": "true", "input_file": "c/a|b", "output_file": "o/x"}
    ok(api.form("/runtask/", command))
    ok(api.form("/runtask/", {**command, "wait_for_input": 5}))
    assert [call[1:] for call in asked.calls] == [
        ("genomes", ["genomes/reads.fasta"]),
        ("genomes", []),
        ("", ["runtask/a"]),
        ("", ["c/a", "c/b"]),
        ("", []),
    ]
    assert {call[0].key for call in asked.calls} == {"canary-key"}


@pytest.mark.parametrize(
    ("says", "status", "kind"),
    [
        (SwiftRefused("http://swift.example answered 401 Unauthorized"), 502, "SwiftError"),
        (AddressRefused("swift.example is refused"), 400, "BadRequest"),
    ],
)
def test_a_swift_that_says_no(api: Api, asked: Asked, says: Any, status: int, kind: str) -> None:
    asked.says = says
    assert error(api.form("/runtask/", BODY), status) == (kind, says.message)
    assert not RuntaskJob.objects.exists()
    assert not Run.objects.exists()


# --- Idempotency, lists, tenants ---------------------------------------------------------------------


def test_a_key_makes_one_job_whatever_the_swift_says_by_then(api: Api, asked: Asked) -> None:
    first = ok(api.form("/runtask/", BODY, Idempotency_Key="k"))
    asked.says = SwiftRefused("503 Service Unavailable")
    assert ok(api.form("/runtask", BODY, Idempotency_Key="k")) == first
    assert RuntaskJob.objects.count() == 1
    assert error(api.form("/runtask/", {**BODY, "file_name": "x"}, Idempotency_Key="k"), 409)[0] == "Conflict"
    assert error(api.form("/runtask/", BODY, Idempotency_Key="k2"), 502)[0] == "SwiftError"
    asked.says = None
    second = ok(api.form("/runtask/", BODY, Idempotency_Key="k2"))
    assert second != first, "an answer that was no success is not kept"


def test_a_key_with_multipart(api: Api) -> None:
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in BODY.items()
    )
    sent = ("POST", "/runtask/", parts + "--x--\r\n", "multipart/form-data; boundary=x")
    assert ok(api.send(*sent, Idempotency_Key="k")) == ok(api.send(*sent, Idempotency_Key="k"))
    assert RuntaskJob.objects.count() == 1


def test_other_tenants_see_nothing(api: Api, stranger: Api) -> None:
    job_id = api.run()
    mine = stranger.run()
    assert ok(stranger.get("/listjobs/"))["jobs"] == [mine]
    nobody = error(stranger.get("/job/?job_id=999999"), 404)
    assert error(stranger.get(f"/job/?job_id={job_id}"), 404) == nobody
    assert error(stranger.form("/canceljob/", {"job_id": job_id}), 404) == nobody
    assert api.job(job_id)["job_done"] is False


def test_a_list_in_pages_and_its_cap(api: Api, settings: Any) -> None:
    made = [api.run() for _ in range(5)]
    answer = api.get("/listjobs/?limit=2")
    assert ok(answer) == {"status": True, "empty": False, "jobs": made[:2]}
    link = answer.headers["Link"].partition(">")[0].removeprefix("<http://testserver")
    assert ok(api.get(link))["jobs"] == made[2:4]
    assert ok(api.get(f"/listjobs/?cursor={made[-1]}")) == {"status": True, "empty": True, "jobs": []}
    settings.GANTRY_LIST_CAP = 4
    answer = api.get("/listjobs/")
    assert ok(answer)["jobs"] == made[:4]
    assert "Link" in answer.headers
    for query in ("limit=0", "limit=x", "cursor=x"):
        assert error(api.get(f"/listjobs/?{query}"), 400)[0] == "BadRequest"


def test_calls_cost_as_many_queries_whatever_is_there(api: Api, stage: Stage) -> None:
    def count(path: str) -> int:
        with CaptureQueriesContext(connection) as seen:
            body(api.get(path))
        return len(seen)

    first = api.run()
    stage.done(first, b"out", b"err")
    paths = ("/listjobs/", f"/job/?job_id={first}", "/api/v1/runs?family=runtask")
    few = [count(path) for path in paths]
    for number in range(20):
        job_id = api.run()
        if number % 2:
            stage.done(job_id, b"out", b"err")
    assert [count(path) for path in paths] == few
    assert few[0] <= 2
    assert few[1] <= 6


# --- Cross-family ------------------------------------------------------------------------------------


def test_runs_and_explanations_show_the_family(api: Api) -> None:
    job_id = api.run()
    (run,) = ok(api.get("/api/v1/runs?family=runtask"))
    assert (run["family"], run["name"]) == ("runtask", "default")
    assert run["owner"] == {"id": job_id, "url": f"http://testserver/job/?job_id={job_id}"}
    assert ok(api.get(f"/api/v1/runs?family=runtask&owner={job_id}"))[0]["id"] == run["id"]
    told = ok(api.get(f"/api/v1/runs/{run['id']}/explain"))
    assert told["state"] == "PENDING"
    assert told["reasons"]


def test_a_callback_url_in_the_header(api: Api) -> None:
    job_id = ok(api.form("/runtask/", BODY, X_Callback_Url="http://receiver.example/hook"))["job_id"]
    assert Stage.run_of(job_id).callback_url == "http://receiver.example/hook"
    assert error(api.form("/runtask/", BODY, X_Callback_Url="ftp://receiver.example"), 400)[0] == "BadRequest"


def test_definitions_are_listed(api: Api) -> None:
    found = ok(api.get("/api/v1/definitions"))
    assert [item["name"] for item in found] == ["clustalo", "default"]
    assert all(set(item) == {"name", "first", "parameters", "description"} for item in found)
    answer = api.get("/api/v1/definitions/?limit=1")
    assert [item["name"] for item in ok(answer)] == ["clustalo"]
    link = answer.headers["Link"].partition(">")[0].removeprefix("<http://testserver")
    assert [item["name"] for item in ok(api.get(link))] == ["default"]
    assert set(api.post("/api/v1/definitions", {}).json()) == {"error"}
