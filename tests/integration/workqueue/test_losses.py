"""What becomes of elements whose run is over, gone or never came: nothing is lost, attempts are counted."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.integration.workqueue.scene import (
    Scene,
    batch_of,
    begin,
    elements,
    end,
    entry,
    folder,
    settle,
    statuses,
)
from workers.models import Run
from workers.vocabulary.leases import Lease
from workers.vocabulary.states import Reason, State
from workqueue import book
from workqueue.book import dispatching, settling, stopping
from workqueue.models import Batch, Element, ElementAttempt, Job, ListingPart
from workqueue.models.jobs import Status, Type


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (State.FAILED, Reason.UNREACHABLE, "Lost with run"),
        (State.FAILED, Reason.TIMEOUT, "Timed out with run"),
        (State.CANCELLED, Reason.OPERATOR, "was stopped"),
        (State.SUCCEEDED, Reason.NONE, "ended without a word about it"),
    ],
)
def test_what_had_begun_has_one_attempt_more(scene: Scene, state: State, reason: Reason, words: str) -> None:
    job = scene.opened(scene.job(), folder("/tree", entry("a"), entry("b"), entry("c")))
    (mover,) = scene.movers()
    mover.report(end(1, moved=3), begin(2, part=True, version="v1"))
    mover.finish(state, reason, "the node fell silent")
    settle()
    assert statuses(job) == [Status.DONE, Status.DONE, Status.SUBMITTED, Status.SUBMITTED]
    begun, untouched = elements(job)[2:]
    assert (begun.attempts, begun.part_attempt, begun.source_version) == (1, 1, "v1")
    assert (untouched.attempts, untouched.batch_id) == (0, None)
    told = ElementAttempt.objects.get(number=2)
    assert (told.status, told.host, told.run_id) == (Status.FAILED, "host-1", mover.lease.run_id)
    assert told.log.startswith("Job run on host: host-1, returncode: 1")
    assert words in told.log
    assert "the node fell silent" in told.log
    assert not Batch.objects.filter(closed_at=None).exists()
    Element.objects.update(not_before=None)
    (again,) = scene.movers()
    assert again.told() == [2, 3]
    orders = again.orders()
    assert orders is not None
    # What was never told to have begun may have done more than anybody heard of.
    assert [(item["attempt"], item["part"], item["committed"]) for item in orders["elements"]] == [
        (2, 1, True),
        (1, 1, True),
    ]
    again.report(end(2, 2, moved=3), end(3, moved=3))
    job.refresh_from_db()
    assert job.finished_at is not None


def _waits(job: Job) -> list[float]:
    """Until the next try of each element but the listing, in s."""
    now = timezone.now()
    return [(item.not_before - now).total_seconds() if item.not_before else 0.0 for item in elements(job)[1:]]


def test_after_a_killed_mover_the_usual_time_is_waited(scene: Scene, settings: Any) -> None:
    """Longer with each try where one was counted; the others wait as after a first. Catches half a minute
    for everybody, however short the operator's retries are, and no longer one for what kills its mover."""
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 8.0
    job = scene.opened(scene.job(max_tries=9), folder("/tree", entry("a"), entry("b")))
    for attempt in (1, 2, 3):
        Element.objects.update(not_before=None)
        (mover,) = scene.movers()
        mover.report(begin(1, attempt))
        mover.finish(State.FAILED, Reason.EXIT_CODE, "killed")
        settle()
        begun, untouched = _waits(job)
        due = 8.0 * 2 ** (attempt - 1)
        assert 0.6 * due < begun <= due
        assert 7.0 < untouched <= 8.0


def test_where_no_try_was_counted_the_pause_is_longer(scene: Scene, settings: Any) -> None:
    """Nothing but time bounds it: a mover that dies of its orders would come again at once, for ever."""
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 1.0
    job = scene.opened(scene.job(), folder("/tree", entry("a")))
    (mover,) = scene.movers()
    mover.finish(State.FAILED, Reason.OOM)
    settle()
    (untouched,) = _waits(job)
    assert settling.PAUSE_S - 2 < untouched <= settling.PAUSE_S


def test_a_run_that_never_started_leaves_no_trace(scene: Scene) -> None:
    job = scene.opened(scene.job(), folder("/tree", entry("a")))
    scene.movers()
    Run.objects.filter(finished_at=None).update(
        state=State.FAILED, reason=Reason.EXPIRED, finished_at=timezone.now(), lease_until=None
    )
    settle()
    (item,) = elements(job)[1:]
    assert (item.status, item.attempts, item.part_attempt) == (Status.SUBMITTED, 0, None)
    assert len(scene.movers()) == 1


@pytest.mark.parametrize("kind", [Type.RENAME, Type.REMOVE, Type.MKDIR])
def test_what_may_be_done_already_is_told_so(scene: Scene, kind: Type) -> None:
    """A mover that dies within half a second has told nothing. Catches a rename that fails since its source
    is gone: its own earlier attempt has renamed it."""
    job = scene.job(kind)
    if kind != Type.MKDIR:
        scene.opened(job, folder("/tree" if kind == Type.REMOVE else "/", entry("tree")))
    (mover,) = scene.movers()
    mover.finish(State.FAILED, Reason.LOST)
    settle()
    Element.objects.update(not_before=None)
    (again,) = scene.movers()
    orders = again.orders()
    assert orders is not None
    assert {(item["act"], item["attempt"], item["committed"]) for item in orders["elements"]} == {
        (kind.name, 1, True)
    }
    assert stopping.cancel(job)
    again.finish(State.CANCELLED)
    settle()
    assert dispatching.look()["sweeps"] == 0, "what is no COPY leaves no part"


def test_a_run_that_is_gone(scene: Scene) -> None:
    job = scene.opened(scene.job(max_tries=1), folder("/tree", entry("a"), entry("b")))
    (mover,) = scene.movers()
    mover.report(begin(1))
    batch = batch_of(mover)
    Batch.objects.filter(pk=batch.pk).update(run_id=10**9)
    settle()
    assert statuses(job) == [Status.DONE, Status.FAILED, Status.SUBMITTED]
    assert "Lost: run 1000000000 is gone" in ElementAttempt.objects.get(number=1).log


def test_a_pull_workers_lease_that_is_over(scene: Scene) -> None:
    job = scene.opened(scene.job(), folder("/tree", entry("a")))
    (mover,) = scene.movers()
    mover.report(begin(1))
    late = timezone.now() - timedelta(seconds=1)
    Batch.objects.filter(pk=batch_of(mover).pk).update(run_id=None, lease_until=late, holder="w1")
    settle()
    assert statuses(job) == [Status.DONE, Status.SUBMITTED]
    assert "worker w1 did not report in time" in ElementAttempt.objects.get(number=1).log


def test_a_listing_that_is_lost_leaves_nothing(scene: Scene) -> None:
    job = scene.job(Type.COPY)
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", *(entry(f"f{each}") for each in range(50))))
    job.refresh_from_db()
    assert (job.elements, job.num_running) == (51, 1)
    assert not scene.movers()  # what it has found is not to be done before it has ended
    mover.finish(State.FAILED, Reason.LOST)
    settle()
    assert statuses(job) == [Status.SUBMITTED]
    assert not ListingPart.objects.exists()
    Element.objects.update(not_before=None)
    job = scene.opened(job, folder("/tree", entry("a")), attempt=2)
    assert statuses(job) == [Status.DONE, Status.NEW]
    assert (job.bytes_total, job.num_new) == (3, 1)


def test_a_listing_that_fails_for_good(scene: Scene) -> None:
    job = scene.job(Type.REMOVE)
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", entry("a"), entry("b")))
    mover.report(end(0, ok=False, again=False, code=13, log="no permission"))
    mover.finish()
    assert Job.objects.filter(finished_at=None).exists()
    assert not scene.movers()
    settle()
    job.refresh_from_db()
    assert statuses(job) == [Status.FAILED]
    assert job.finished_at is not None
    assert (job.num_failed, job.elements) == (1, 1)


def test_a_report_that_comes_after_the_end_changes_nothing(scene: Scene) -> None:
    """The scribe's fence keeps it out; even if it did not, nobody would take it."""
    job = scene.opened(scene.job(), folder("/tree", entry("a")))
    (mover,) = scene.movers()
    mover.report(begin(1))
    mover.finish(State.FAILED, Reason.LOST)
    settle()
    mover.report(end(1, moved=3))
    assert statuses(job) == [Status.DONE, Status.SUBMITTED]
    assert mover.orders() is None


def test_a_later_attempt_of_a_run_takes_its_elements_over(scene: Scene) -> None:
    """Runs that carry batches are not tried again, but may be given back before they start."""
    job = scene.opened(scene.job(), folder("/tree", entry("a"), entry("b")))
    (mover,) = scene.movers()
    mover.lease = Lease(mover.lease.run_id, 2, 2)
    assert book.reported_until(mover.lease) == 0
    mover.report(begin(1))
    assert book.reported_until(mover.lease) > 0
    mover.lease = Lease(mover.lease.run_id, 1, 1)
    mover.report(end(2))
    assert statuses(job) == [Status.DONE, Status.RUNNING, Status.SUBMITTED]
    mover.lease = Lease(mover.lease.run_id, 3, 3)
    mover.sent.clear()
    mover.report(begin(2))
    assert statuses(job) == [Status.DONE, Status.SUBMITTED, Status.SUBMITTED]
    assert "Lost with attempt 2" in ElementAttempt.objects.get(number=1).log


def test_parts_of_what_failed_for_good_are_swept(scene: Scene) -> None:
    job = scene.opened(scene.job(max_tries=1), folder("/tree", entry("a"), entry("b")))
    (mover,) = scene.movers()
    mover.report(begin(1, part=True), end(2, moved=3))
    mover.finish(State.FAILED, Reason.UNREACHABLE)
    settle()
    job.refresh_from_db()
    assert job.finished_at is not None  # the sweep is not waited for
    (sweeper,) = scene.movers()
    assert not scene.movers()
    orders = sweeper.orders()
    assert orders is not None
    assert [(item["n"], item["part"]) for item in orders["sweep"]] == [(1, 1)]
    assert orders["elements"] == ()
    sweeper.finish(State.FAILED, Reason.LOST)
    settle()
    assert not scene.movers()  # later
    Element.objects.update(not_before=None)
    (sweeper,) = scene.movers()
    assert sweeper.orders() is not None
    sweeper.report({"r": "note", "text": "swept"})
    sweeper.finish()
    settle()
    assert elements(job)[1].part_attempt is None
    assert not scene.movers()
    assert not Batch.objects.filter(closed_at=None).exists()


def test_what_was_not_begun_avoids_the_endpoint_too(scene: Scene) -> None:
    """A mover gives up on an endpoint that is away, and leaves the rest of its batch."""
    scene.target.endpoints = [{"protocol": "LOCAL", "path": f"/data/{name}"} for name in ("there", "mirror")]
    scene.target.save()
    scene.opened(scene.job(), folder("/tree", entry("a"), entry("b"), entry("c")))
    (mover,) = scene.movers()
    mover.report(end(1, ok=False, avoid="dst"))
    mover.finish(State.FAILED, Reason.EXIT_CODE, "there does not answer")
    settle()
    Element.objects.update(not_before=None)
    (again,) = scene.movers()
    orders = again.orders()
    assert orders is not None
    assert orders["target"]["path"] == "/data/mirror"
    assert [item["n"] for item in orders["elements"]] == [1, 2, 3]
