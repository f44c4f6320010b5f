"""A log that retention has deleted says so to whoever reads or follows it (contract page 00)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from django.http import StreamingHttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from tests.integration.logs.log_runs import STDERR, STDOUT, LoggedRun, running
from tests.support.pruned import let_output_go
from workers.api.runs.logs import log_response, whole_log
from workers.models import Attempt, LogChunk, Tenant
from workers.upkeep import retention
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)

LINE = re.compile(
    rb"\[\.\.\. deleted on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: "
    rb"output is kept for 14 days after a run's end \.\.\.\]\n"
)


def ask(
    run: LoggedRun, query: str = "", headers: Mapping[str, str] | None = None, root: str = "/v1/tasks"
) -> tuple[StreamingHttpResponse, bytes]:
    request = RequestFactory().get(f"{root}/{run.id}/logs?{query}", headers=dict(headers or {}))
    response = log_response(request, run.row)
    body = response.getvalue()
    response.close()
    return response, body


def ended(out: bytes = b"0123456789", err: bytes = b"abcdef") -> LoggedRun:
    run = running()
    for stream, data in ((STDOUT, out), (STDERR, err)):
        if data:
            run.write(data, 0, stream)
    run.finish()
    return run


@pytest.fixture
def gone(settings: Settings) -> LoggedRun:
    """Both streams had output, 10 and 6 bytes, and retention has deleted it."""
    settings.GANTRY_KEEP_LOGS_D = 14
    run = ended()
    let_output_go(run.id)
    return run


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("stream=stderr", {}),
        ("tail=3", {}),
        ("attempt=1", {}),
        ("stream=stdout&offset=9", {}),
        ("stream=stdout&offset=0&wait=30", {}),
        ("stream=stdout", {"Range": "bytes=0-3"}),
        ("follow=1", {}),
    ],
)
def test_whoever_reads_it_gets_one_line(gone: LoggedRun, query: str, headers: dict[str, str]) -> None:
    response, body = ask(gone, query, headers)
    assert (response.status_code, response["X-Log-Pruned"]) == (200, "true")
    assert LINE.fullmatch(body), body


def test_who_polls_is_told_that_nothing_follows(gone: LoggedRun) -> None:
    for offset, line in ((0, True), (10, False), (11, False)):
        response, body = ask(gone, f"stream=stdout&offset={offset}")
        assert bool(body) is line
        assert response["X-Log-Offset"] == str(max(offset, 10))
        assert (response["X-Log-Complete"], response["X-Log-Pruned"]) == ("true", "true")


@pytest.mark.parametrize(
    ("last", "gaps"),
    [
        ("", [("stdout", 0, 10), ("stderr", 0, 6)]),
        ("1:4:6", [("stdout", 4, 6)]),
        ("1:10:6", []),
    ],
)
def test_who_follows_is_told_the_gap_and_the_end(
    gone: LoggedRun, last: str, gaps: list[tuple[str, int, int]]
) -> None:
    response, body = ask(gone, "follow=1", {"Last-Event-ID": last}, "/api/v1/runs")
    found = re.findall(r"id: (\S+)\nevent: (\w+)\ndata: (.*)\n", body.decode())
    told = [(kind, json.loads(data)) for _, kind, data in found]
    assert response["X-Log-Pruned"] == "true"
    assert told == [
        *(("gap", {"stream": stream, "offset": offset, "bytes": count}) for stream, offset, count in gaps),
        ("end", {"state": "SUCCEEDED", "exit_code": 0, "attempt": 1}),
    ]
    assert found[-1][0] == "1:10:6:end"


def test_what_wrote_nothing_has_lost_nothing() -> None:
    both, quiet = ended(b"out", b""), ended(b"", b"")
    again = running(retries=1)
    again.write(b"first", 0)
    again.try_again()
    again.claim()
    again.finish()
    let_output_go(both.id, quiet.id, again.id)
    for run, query, line in (
        (both, "stream=stderr", False),
        (both, "stream=stdout", True),
        (quiet, "", False),
        (again, "", False),
        (again, "attempt=1", True),
    ):
        response, body = ask(run, query)
        assert (bool(body), "X-Log-Pruned" in response) == (line, line), (run.id, query)
    assert (quiet.row.log_pruned_at, both.row.log_pruned_at is None) == (None, False)


def test_a_log_that_goes_in_several_rounds_is_deleted_from_the_first_on(settings: Settings) -> None:
    settings.GANTRY_KEEP_LOGS_D = 14
    run = running()
    for number in range(9):
        run.write(b"x" * 10, 10 * number)
    run.finish(State.FAILED, Reason.EXIT_CODE, 3)
    let_output_go(run.id, days=1)
    assert retention.prune_once(1)["logs"] == 0
    settings.GANTRY_KEEP_LOGS_D = 0
    let_output_go(run.id)
    settings.GANTRY_KEEP_LOGS_D = 14
    assert retention.prune_once(1)["logs"] == 4
    assert LogChunk.objects.filter(run_id=run.id).count() == 5
    at = run.row.log_pruned_at
    assert LINE.fullmatch(ask(run)[1])
    assert ask(run, "follow=1", {"Last-Event-ID": "1:70:0"}, "/api/v1/runs")[1].count(b"event: gap") == 1
    let_output_go(run.id)
    assert run.row.log_pruned_at == at
    assert Attempt.objects.get(run_id=run.id).log_pruned == [90, 0]
    assert not LogChunk.objects.filter(run_id=run.id).exists()


def test_the_line_tells_the_time_that_holds_for_the_run(gone: LoggedRun, settings: Settings) -> None:
    def line() -> str:
        return ask(gone)[1].decode()

    settings.GANTRY_KEEP_LOGS_D = 0
    settings.GANTRY_KEEP_RUNS_D = 0
    assert "output is kept for ever now, but was not then" in line()
    Tenant.objects.filter(name="log-tests").update(retention={"families": {"tasks": {"logs_d": 1}}})
    assert "output is kept for 1 day after a run's end" in line()


def test_a_download_is_the_line(gone: LoggedRun) -> None:
    for method, body in (("GET", True), ("HEAD", False)):
        request = RequestFactory().generic(method, "/api/jobs/x/log/1")
        response = whole_log(request, "job.log", gone.id, stream=1)
        assert response["X-Log-Pruned"] == "true"
        assert bool(LINE.fullmatch(response.getvalue())) is body
