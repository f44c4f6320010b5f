"""Requests for a log: parameters and headers in, status, headers and body out."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from django.http import StreamingHttpResponse
from django.test import RequestFactory

from tests.integration.logs.log_runs import STDERR, LoggedRun, running, submitted
from workers.api.runs.logs import log_response
from workers.vocabulary.errors import InvalidInput, NotFound
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)


def ask(run: LoggedRun, query: str = "", headers: Mapping[str, str] | None = None) -> StreamingHttpResponse:
    request = RequestFactory().get(f"/v1/tasks/{run.id}/logs?{query}", headers=dict(headers or {}))
    return log_response(request, run.row)


def text(run: LoggedRun, query: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    response = ask(run, query, headers)
    body = response.getvalue()
    response.close()
    return body


@pytest.fixture
def run() -> LoggedRun:
    """Both streams have output, 0123456789 and abcdef, and the run has ended."""
    run = running()
    run.write(b"01234", 0)
    run.write(b"56789", 5)
    run.write(b"abcdef", 0, STDERR)
    run.finish()
    return run


def test_the_whole_is_stdout_then_stderr(run: LoggedRun) -> None:
    response = ask(run)

    assert response.status_code == 200
    assert response.getvalue() == b"0123456789abcdef"
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Accel-Buffering"] == "no"
    assert response["Cache-Control"] == "no-store"
    assert response["X-Log-Attempt"] == "1"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("stream=stdout", b"0123456789"),
        ("stream=stderr", b"abcdef"),
        ("stream=stdout&tail=3", b"789"),
        ("tail=2", b"89ef"),
        ("tail=0", b""),
        ("tail=999", b"0123456789abcdef"),
        ("attempt=1", b"0123456789abcdef"),
        ("attempt=-1&stream=stderr", b"abcdef"),
        ("stream=stdout&offset=7", b"789"),
        ("stream=&attempt=&tail=&offset=&wait=&follow=", b"0123456789abcdef"),
    ],
)
def test_parameters_choose_what_is_sent(run: LoggedRun, query: str, body: bytes) -> None:
    assert text(run, query) == body


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stream=both", "stream"),
        ("attempt=0", "attempt"),
        ("attempt=one", "attempt"),
        ("attempt=99999999999", "attempt"),
        ("tail=-1", "tail"),
        ("tail=99999999999999999999", "tail"),
        ("offset=3", "stream"),
        ("offset=-3&stream=stdout", "offset"),
        ("offset=0&stream=stdout&wait=soon", "wait"),
        ("offset=0&stream=stdout&wait=nan", "wait"),
        ("follow=yes", "follow"),
        ("raw=2", "raw"),
    ],
)
def test_wrong_parameters_are_named(run: LoggedRun, query: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(run, query)

    assert caught.value.field == field


@pytest.mark.parametrize("attempt", [2, -2, 2**31 - 1])
def test_an_attempt_that_never_was_is_not_found(run: LoggedRun, attempt: int) -> None:
    with pytest.raises(NotFound, match=f"has no attempt {attempt}: it has had 1"):
        ask(run, f"attempt={attempt}")


def test_every_attempt_keeps_its_own_output() -> None:
    run = running(retries=1)
    run.write(b"first", 0)
    run.try_again()
    run.claim().write(b"second", 0)

    assert text(run) == b"second"
    assert text(run, "attempt=1") == b"first"
    assert text(run, "attempt=-2") == b"first"


def test_a_run_that_waits_has_an_empty_log() -> None:
    run = submitted()

    assert text(run) == b""
    assert ask(run)["X-Log-Attempt"] == "0"
    assert text(run, "stream=stdout&offset=0") == b""


@pytest.mark.parametrize(
    ("asked", "found", "body"),
    [
        ("bytes=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=4-", "bytes 4-9/10", b"456789"),
        ("bytes=-4", "bytes 6-9/10", b"6789"),
        ("bytes=8-100", "bytes 8-9/10", b"89"),
        ("bytes=-100", "bytes 0-9/10", b"0123456789"),
        ("bytes=3-6", "bytes 3-6/10", b"3456"),
    ],
)
def test_a_range_of_one_stream(run: LoggedRun, asked: str, found: str, body: bytes) -> None:
    response = ask(run, "stream=stdout", {"Range": asked})

    assert response.status_code == 206
    assert response["Content-Range"] == found
    assert response["Content-Length"] == str(len(body))
    assert response.getvalue() == body


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=11-12", "bytes=5-4", "bytes=-0"])
def test_a_range_beyond_the_end(run: LoggedRun, asked: str) -> None:
    response = ask(run, "stream=stdout", {"Range": asked})

    assert response.status_code == 416
    assert response["Content-Range"] == "bytes */10"
    assert b"nothing is stored there; stdout has 10 bytes" in response.getvalue()


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=x-y", "lines=0-3", "bytes=-"])
def test_a_range_that_we_do_not_know_is_the_whole(run: LoggedRun, asked: str) -> None:
    response = ask(run, "stream=stdout", {"Range": asked})

    assert (response.status_code, response.getvalue()) == (200, b"0123456789")
    assert response["Accept-Ranges"] == "bytes"


def test_a_range_needs_one_stream(run: LoggedRun) -> None:
    with pytest.raises(InvalidInput, match="add stream=stdout"):
        ask(run, "", {"Range": "bytes=0-3"})


def test_the_length_of_a_running_stream_is_not_told_as_final() -> None:
    run = running()
    run.write(b"0123456789", 0)

    assert ask(run, "stream=stdout", {"Range": "bytes=2-3"})["Content-Range"] == "bytes 2-3/*"


def test_left_out_output_is_one_line_in_whole_reads_only() -> None:
    run = running()  # keeps 1 KiB + 1 KiB of a stream
    run.write(b"head", 0)
    run.write(b"tail", 5000)
    run.finish()

    assert text(run) == b"head\n[... 4996 bytes left out: output over the limit of 0.00195312 MiB ...]\ntail"
    assert text(run, "stream=stdout&tail=6").endswith(b" MiB ...]\ntail")
    assert text(run, "stream=stdout&offset=2") == b"adtail"
    response = ask(run, "stream=stdout", {"Range": "bytes=2-5001"})
    assert (response["Content-Range"], response.getvalue()) == ("bytes 2-3/5004", b"ad")
    assert ask(run, "stream=stdout", {"Range": "bytes=10-20"}).status_code == 416


def test_the_end_of_a_lost_node_says_what_may_be_missing() -> None:
    run = running()
    run.write(b"so far", 0)
    run.finish(State.FAILED, Reason.UNREACHABLE, None)

    assert text(run) == b"so far\n[... the node was lost: output after this may not have been saved ...]\n"


def test_a_long_poll_answers_with_what_is_there(run: LoggedRun) -> None:
    response = ask(run, "stream=stdout&offset=4&wait=10")

    assert response.getvalue() == b"456789"
    assert (response["X-Log-Offset"], response["X-Log-Complete"], response["X-Log-Attempt"]) == (
        "10",
        "true",
        "1",
    )
    beyond = ask(run, "stream=stdout&offset=50&wait=10")
    assert (beyond["X-Log-Offset"], beyond.getvalue()) == ("50", b"")


def test_head_neither_waits_nor_follows() -> None:
    run = running()
    run.write(b"something", 0)
    request = RequestFactory().head(f"/api/v1/runs/{run.id}/logs?follow=1&wait=20")
    response = log_response(request, run.row)

    assert (response.status_code, response.getvalue()) == (200, b"")
    assert response["Content-Type"] == "text/plain; charset=utf-8"


def test_followed_text_of_an_ended_run_is_the_log_and_ends(run: LoggedRun) -> None:
    assert text(run, "follow=1") == b"0123456789abcdef"
    assert text(run, "follow=1&stream=stderr&tail=2") == b"ef"
    assert text(run, "follow=1&stream=stdout&offset=8") == b"89"


def test_events_when_they_are_asked_for(run: LoggedRun) -> None:
    by_accept = ask(run, "follow=1", {"Accept": "text/event-stream"})
    by_path = log_response(RequestFactory().get("/api/v1/runs/1/logs?follow=1&raw=1"), run.row)

    assert by_accept["Content-Type"] == by_path["Content-Type"] == "text/event-stream; charset=utf-8"
    body = by_accept.getvalue().decode()
    assert body.startswith("retry: 2000\n\nid: 1:5:0\nevent: log\n")
    assert json.loads(body.split("data: ")[-1]) == {"state": "SUCCEEDED", "exit_code": 0, "attempt": 1}
    assert b'"base64":"MDEyMzQ="' in by_path.getvalue()


def test_a_reconnect_goes_on_after_the_last_event(run: LoggedRun) -> None:
    body = text(run, "follow=1", {"Accept": "text/event-stream", "Last-Event-ID": "1:5:6"}).decode()

    assert '"text":"56789"' in body
    assert "01234" not in body
    assert "abc" not in body


def test_after_the_end_a_reconnect_is_told_to_stop(run: LoggedRun) -> None:
    answer = ask(run, "follow=1", {"Accept": "text/event-stream", "Last-Event-ID": "1:10:6:end"})

    assert (answer.status_code, answer.getvalue()) == (204, b"")
