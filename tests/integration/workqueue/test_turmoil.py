"""Everything at once: hand-outs, reports in pieces and twice, failures, losses, settling, a cancel, a retry.

What must hold whatever happens in which order: each element is done once, nothing is lost, counters add up.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from tests.integration.engine_rows import together
from tests.integration.workqueue.scene import (
    FOLDER,
    Mover,
    Scene,
    assert_books,
    begin,
    end,
    entry,
    folder,
    wire,
)
from workers.models import Run
from workers.runs import transitions
from workers.vocabulary.leases import Outcome
from workers.vocabulary.states import Reason, State
from workqueue import book
from workqueue.book import dispatching, settling, stopping
from workqueue.models import ElementAttempt, Job
from workqueue.models.jobs import Status, Type

FILES = 120


def _listing(orders: dict[str, Any]) -> list[dict[str, Any]]:
    top = orders["elements"][0]["src"]
    below = folder(f"{top}/s", *(entry(f"f{each}") for each in range(FILES)))
    above = folder(top, entry("s", FOLDER), entry("x"))
    order = [below, above] if orders["job_act"] == "REMOVE" else [above, below]
    return [*order, {"names": FILES + 2}]


def _lines(orders: dict[str, Any], chance: random.Random) -> list[dict[str, Any]]:
    """What a mover would tell of its orders, if it came to its end."""
    told: list[dict[str, Any]] = []
    for item in orders["elements"]:
        n, attempt = item["n"], item["attempt"]
        if chance.random() < 0.7:
            told.append(begin(n, attempt, part=True, version="v"))
        if item["act"] == "LIST":
            *lines, count = _listing(orders)
            told += lines
            told.append(end(n, attempt, ok=chance.random() < 0.8, **count))
        else:
            told.append(end(n, attempt, ok=chance.random() < 0.8, moved=3, part=chance.random() < 0.2))
    return told


def _play(mover: Mover, chance: random.Random) -> None:
    """A mover's life: it may be lost at any line, and tells some things twice."""
    orders = mover.orders()
    lines = wire(*_lines(orders, chance)) if orders is not None else []
    lost = chance.random() < 0.25
    if lost:
        del lines[chance.randint(0, len(lines)) :]
    sent: list[bytes] = []
    while lines:
        count = chance.randint(1, 40)
        sent += lines[:count]
        del lines[:count]
        if lines or lost:
            begins = chance.randint(0, len(sent) - 1)  # from anywhere that is entered, or right after
            until = book.reported_until(mover.lease)
            while sum(map(len, sent[:begins])) > until:
                begins -= 1
            mover.enter(sum(map(len, sent[:begins])), sent[begins:])
    with transaction.atomic(), connection.cursor() as cursor:
        # As the scribe: the end and the rest of the report are of one commit.
        state, reason = (State.FAILED, Reason.UNREACHABLE) if lost else (State.SUCCEEDED, Reason.NONE)
        assert transitions.finish(cursor, [Outcome(mover.lease, state, reason, started_ago=1.0)], by="n1")
        if sent and not lost:
            book.report(cursor, mover.lease, 0, sent)


@pytest.mark.django_db(transaction=True)
def test_nothing_is_lost_and_nothing_done_twice(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 0.0
    monkeypatch.setattr(settling, "PAUSE_S", 0.0)
    monkeypatch.setattr(settling, "SWEEP_S", 0.0)
    monkeypatch.setattr(dispatching, "WORTH", 20)
    scene = Scene()
    jobs = [
        scene.job(kind, f"/t{number}", max_tries=100)
        for number, kind in enumerate((Type.COPY, Type.REMOVE, Type.COPY, Type.COPY))
    ]
    cancelled = jobs[-1]
    over = threading.Event()

    def looks() -> None:
        while not over.is_set():
            settling.look()
            dispatching.look()
            over.wait(0.02)  # pace: as duties, which do not look without a break

    def moves(seed: int) -> Callable[[], None]:
        def move() -> None:
            chance = random.Random(seed)
            while not over.is_set():
                for mover in scene.claim():
                    _play(mover, chance)
                if (
                    not Job.objects.filter(finished_at=None).exists()
                    and not Run.objects.filter(finished_at=None).exists()
                ):
                    over.set()
                over.wait(0.02)  # pace: as nodes, which do not look for work without a break

        return move

    def stops() -> None:
        while not over.is_set():
            cancelled.refresh_from_db()
            if cancelled.num_done > FILES // 3:
                stopping.cancel(cancelled)
                return
            over.wait(0.02)  # pace: until some of it is done

    seed = random.randrange(1 << 30)
    together(looks, looks, moves(seed), moves(seed + 1), moves(seed + 2), stops)
    settling.look()
    assert_books()
    for job in jobs:
        job.refresh_from_db()
        assert job.finished_at is not None
        done = Counter(
            ElementAttempt.objects.filter(job=job, status=Status.DONE).values_list("number", flat=True)
        )
        assert set(done.values()) == {1}, seed
        assert len(done) == job.num_done, seed
        if job != cancelled:
            expected = FILES + 2 if job.type == Type.COPY else FILES + 4
            assert (job.num_done, job.num_failed) == (expected, 0), seed
