"""What comes next in the output of a run, as events; and waiting for it, with a limit on how many wait.

Nobody holds a database connection while waiting: the database is asked again every 0.1 s while there is
output, and slower, up to 1 s, while there is none. Knows no HTTP. Must not import services or claiming.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from time import sleep
from typing import Final

from django.conf import settings
from django.db import connection

from workers.logs import store
from workers.logs.aside import step_aside
from workers.vocabulary.errors import Unavailable
from workers.vocabulary.states import is_final

FAST_S: Final = 0.1
SLOW_S: Final = 1.0
#: An event at least this often, so that a follower whose client has gone notices.
BEAT_S: Final = 10.0
#: Longest long poll.
WAIT_S: Final = 30.0
#: One event carries about this many bytes.
EVENT: Final = 64 * 1024


@dataclass(frozen=True)
class Place:
    """Where a follower stands: the next offset of each stream of an attempt."""

    attempt: int
    offsets: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """Bytes of a stream at ``offset``; ``place`` is after them."""

    place: Place
    stream: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Gap:
    """``length`` bytes from ``offset`` on were left out, or deleted by retention (``pruned``)."""

    place: Place
    stream: int
    offset: int
    length: int
    pruned: bool = False


@dataclass(frozen=True)
class NextAttempt:
    """Another attempt starts: its output follows."""

    place: Place


@dataclass(frozen=True)
class End:
    """Nothing follows. ``state`` is empty when the run has been deleted meanwhile."""

    place: Place
    state: str
    exit_code: int | None


@dataclass(frozen=True)
class Beat:
    """Nothing new; still there."""


Event = Output | Gap | NextAttempt | End | Beat


@dataclass(frozen=True)
class Status:
    """A run and one of its attempts, read in one statement."""

    state: str
    latest: int
    exit_code: int | None
    attempt_state: str
    attempt_exit_code: int | None
    #: No output of this attempt will follow.
    complete: bool
    reason: str
    #: Lengths of its streams that retention has deleted, in bytes.
    pruned: list[int] | None = None


GONE: Final = Status("", 0, None, "", None, True, "")


def status(run_id: int, attempt: int) -> Status:
    """Read it before the chunks: then what it calls complete is complete."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT r.state, r.attempt, r.exit_code, coalesce(a.state, ''), a.exit_code,
                   a.finished_at IS NOT NULL, coalesce(a.reason, ''), a.log_pruned
               FROM workers_run r LEFT JOIN workers_attempt a ON a.run_id = r.id AND a.number = %s
               WHERE r.id = %s""",
            [attempt, run_id],
        )
        row = cursor.fetchone()
    if row is None:
        return GONE
    found = Status(*row)
    return replace(found, complete=True) if is_final(found.state) else found


def follow(
    run_id: int, place: Place, stream: int | None = None, *, pinned: bool = False
) -> Generator[Event, None, None]:
    """Everything from ``place`` on, then what comes, until the run ends (``pinned``: until the attempt ends).

    Attempt 0 stands for the first one of a run that has not started. A follower of a run is taken along to
    its next attempts.
    """
    streams = list(store.NAMES) if stream is None else [stream]
    place = Place(place.attempt, {each: place.offsets.get(each, 0) for each in store.NAMES})
    pause = FAST_S
    last_event = time.monotonic()
    while True:
        now = status(run_id, place.attempt)
        quiet = True
        for each in streams:
            for event in _lost(now, place, each) or _new(run_id, place, each):
                place = event.place
                quiet = False
                yield event
        if not quiet:
            pause, last_event = FAST_S, time.monotonic()
            continue
        store.release()
        if now.complete or now.latest > place.attempt:
            if now.latest > place.attempt and not pinned:
                place = Place(place.attempt + 1, dict.fromkeys(store.NAMES, 0))
                yield NextAttempt(place)
                continue
            if pinned and place.attempt:
                yield End(place, now.attempt_state, now.attempt_exit_code)
                return
            if is_final(now.state) or now is GONE:
                yield End(place, now.state, now.exit_code)
                return
        sleep(pause)
        pause = min(SLOW_S, pause * 1.5)
        if time.monotonic() - last_event >= BEAT_S:
            last_event = time.monotonic()
            yield Beat()


def _lost(now: Status, place: Place, stream: int) -> list[Gap]:
    """What retention has deleted of a stream after ``place``; what is stored still is about to go, too."""
    end = dict(zip(store.NAMES, now.pruned or [], strict=False)).get(stream, 0)
    start = place.offsets[stream]
    after = Place(place.attempt, {**place.offsets, stream: end})
    return [Gap(after, stream, start, end - start, pruned=True)] if end > start else []


def _new(run_id: int, place: Place, stream: int) -> Iterator[Output | Gap]:
    pieces = store.batch(run_id, place.attempt, stream, place.offsets[stream], limit=EVENT)
    if pieces:
        store.release()
    for offset, data in pieces:
        start = place.offsets[stream]
        if offset > start:
            place = Place(place.attempt, {**place.offsets, stream: offset})
            yield Gap(place, stream, start, offset - start)
        place = Place(place.attempt, {**place.offsets, stream: offset + len(data)})
        yield Output(place, stream, offset, data)


def wait_for(run_id: int, attempt: int, stream: int, offset: int, seconds: float) -> tuple[int, bool]:
    """Wait until the stream is longer than ``offset``, at most ``seconds`` (30) s.

    Returns (its length, whether the attempt has ended so that nothing follows).
    """
    deadline = time.monotonic() + min(seconds, WAIT_S)
    pause = FAST_S
    while True:
        complete = status(run_id, attempt).complete
        end = store.size(run_id, attempt)[stream]
        left = deadline - time.monotonic()
        if end > offset or complete or left <= 0:
            return end, complete
        store.release()
        sleep(min(pause, left))
        pause = min(SLOW_S, pause * 1.5)


class Budget:
    """How many may wait at once in this process: each occupies a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> None:
        """Unavailable when all places are taken; pair it with ``give_back``."""
        step_aside()
        with self._lock:
            if self._taken >= settings.GANTRY_FOLLOW_LIMIT:
                raise Unavailable(
                    f"{self._taken} log followers are the most that this process serves "
                    "(GANTRY_FOLLOW_LIMIT): try again later, or read with ?offset= and without waiting",
                    retry_after=5,
                )
            self._taken += 1

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        return self._taken


budget = Budget()
