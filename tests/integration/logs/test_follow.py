"""Following output while it is written: order, resumption, waking, waiting, and the limit on followers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from tests.integration.logs.log_runs import STDERR, STDOUT, LoggedRun, running, submitted
from workers import services
from workers.api.runs.logs import log_response
from workers.logs import following
from workers.logs.following import Beat, End, Event, Gap, NextAttempt, Output, Place
from workers.vocabulary.errors import Unavailable
from workers.vocabulary.states import Reason, State

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def meanwhile(*steps: Callable[[], object], pause: float = 0.3) -> Iterator[None]:
    """Does the steps in another thread, a pause before each."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            for step in steps:
                time.sleep(pause)  # pace: a writer's
                step()
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failures


def events(run: LoggedRun, place: Place | None = None, **options: object) -> list[Event]:
    coming = following.follow(run.id, place or Place(run.row.attempt), **options)  # type: ignore[arg-type]
    return [event for event in coming if not isinstance(event, Beat)]


def data(found: list[Event], stream: int = STDOUT) -> list[bytes]:
    return [event.data for event in found if isinstance(event, Output) and event.stream == stream]


def test_output_is_followed_from_before_the_start_to_the_end() -> None:
    run = submitted()
    with meanwhile(
        run.claim,
        lambda: run.write(b"one ", 0),
        lambda: run.write(b"oops", 0, STDERR),
        lambda: run.write(b"two", 4),
        run.finish,
    ):
        found = events(run, Place(0))

    assert isinstance(found[0], NextAttempt)
    assert b"".join(data(found)) == b"one two"
    assert data(found, STDERR) == [b"oops"]
    end = found[-1]
    assert isinstance(end, End)
    assert (end.state, end.exit_code, end.place) == (State.SUCCEEDED, 0, Place(1, {STDOUT: 7, STDERR: 4}))


def test_a_follower_is_taken_along_to_the_next_attempt() -> None:
    run = running(retries=1)
    run.write(b"first", 0)
    with meanwhile(
        run.try_again,
        run.claim,
        lambda: run.write(b"second", 0),
        lambda: run.finish(State.FAILED, Reason.EXIT_CODE, 7),
    ):
        found = events(run)

    assert data(found) == [b"first", b"second"]
    assert [event.place.attempt for event in found if isinstance(event, NextAttempt)] == [2]
    assert isinstance(found[-1], End)
    assert (found[-1].state, found[-1].exit_code) == (State.FAILED, 7)


def test_a_pinned_follower_ends_with_its_attempt() -> None:
    run = running(retries=1)
    run.write(b"first", 0)
    with meanwhile(run.try_again):
        found = events(run, pinned=True)

    assert data(found) == [b"first"]
    assert isinstance(found[-1], End)
    assert (found[-1].state, found[-1].exit_code) == (State.FAILED, 1)


def test_following_one_stream_leaves_the_other_out() -> None:
    run = running()
    run.write(b"out", 0)
    run.write(b"err", 0, STDERR)
    run.finish()

    found = events(run, stream=STDERR)

    assert data(found) == []
    assert data(found, STDERR) == [b"err"]


def test_resuming_gives_each_byte_once() -> None:
    run = running()
    run.write(b"0123456789", 0)
    run.write(b"abc", 0, STDERR)
    run.finish()

    found = events(run, Place(1, {STDOUT: 4, STDERR: 3}))

    assert data(found) == [b"456789"]
    assert data(found, STDERR) == []


def test_what_was_left_out_is_an_event() -> None:
    run = running()
    run.write(b"head", 0)
    run.write(b"tail", 500)
    run.finish()

    (gap,) = [event for event in events(run) if isinstance(event, Gap)]

    assert (gap.stream, gap.offset, gap.length) == (STDOUT, 4, 496)


def test_a_cancelled_run_that_never_started_ends_at_once() -> None:
    run = submitted()
    services.cancel(None, run.id)

    (end,) = events(run, Place(0))

    assert isinstance(end, End)
    assert end.state == State.CANCELLED


def test_a_deleted_run_ends_its_followers() -> None:
    assert list(following.follow(2**40, Place(1))) == [End(Place(1, {STDOUT: 0, STDERR: 0}), "", None)]


def test_new_output_wakes_soon_and_no_connection_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        held.append(connection.connection is not None)
        pauses.append(seconds)
        time.sleep(seconds)  # pace: the follower's own

    monkeypatch.setattr(following, "sleep", sleep)
    monkeypatch.setattr(following, "BEAT_S", 3600.0)
    run = running()
    run.write(b"x", 0)
    coming = following.follow(run.id, Place(1))
    next(coming)
    with meanwhile(lambda: run.write(b"y", 1), run.finish, pause=0.5):
        found = next(coming)
        rest = list(coming)

    assert isinstance(found, Output)
    assert max(pauses) <= following.SLOW_S
    assert isinstance(rest[-1], End)
    assert held
    assert not any(held)


def test_beats_come_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BEAT_S", 0.2)
    run = running()
    coming = following.follow(run.id, Place(1))

    assert isinstance(next(coming), Beat)
    assert isinstance(next(coming), Beat)
    coming.close()


def test_a_long_poll_ends_with_output_with_the_end_or_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = running()
    started = time.monotonic()
    assert following.wait_for(run.id, 1, STDOUT, 0, 0.3) == (0, False)
    assert time.monotonic() - started >= 0.3

    monkeypatch.setattr(following, "WAIT_S", 3600.0)
    with meanwhile(lambda: run.write(b"abc", 0)):
        assert following.wait_for(run.id, 1, STDOUT, 0, 3600) == (3, False)
    with meanwhile(run.finish):
        assert following.wait_for(run.id, 1, STDOUT, 3, 3600) == (3, True)


def test_the_limit_on_followers_is_kept_and_places_come_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GANTRY_FOLLOW_LIMIT = 2
    monkeypatch.setattr(following, "BEAT_S", 0.1)
    run = running()

    def follow(query: str = "follow=1") -> StreamingHttpResponse:
        return log_response(RequestFactory().get(f"/v1/tasks/{run.id}/logs?{query}"), run.row)

    first, second = follow(), follow()
    for query in ("follow=1", "stream=stdout&offset=0&wait=1"):
        with pytest.raises(Unavailable, match="GANTRY_FOLLOW_LIMIT") as caught:
            follow(query)
        assert caught.value.retry_after == 5
    follow("stream=stdout&offset=0")  # without waiting it needs no place

    first.close()  # the client has gone before the first byte
    assert following.budget.taken == 1
    third = follow()
    assert next(iter(third)) == b""
    third.close()  # and here in the middle
    second.close()
    assert following.budget.taken == 0

    run.finish()
    assert follow().getvalue() == b""
    assert following.budget.taken == 0
