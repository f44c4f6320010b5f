"""Cancel at every stage, and retry: every element ends once, with a log that says why."""

from __future__ import annotations

import pytest

from tests.integration.workqueue.scene import (
    Scene,
    assert_books,
    begin,
    elements,
    end,
    entry,
    folder,
    settle,
    statuses,
)
from workers.models import Callback, Run
from workers.vocabulary.errors import Conflict
from workers.vocabulary.states import State
from workqueue.book import explaining, stopping
from workqueue.models import Batch, ElementAttempt, Job
from workqueue.models.jobs import Status, Type


def ended(job: Job) -> Job:
    job.refresh_from_db()
    assert job.finished_at is not None
    assert not Batch.objects.filter(job=job, closed_at=None).exists()
    assert_books()
    return job


def test_before_anything_was_handed_out(scene: Scene) -> None:
    job = scene.job(callback_url="http://127.0.0.1:9/hook")
    assert stopping.cancel(job)
    assert statuses(ended(job)) == [Status.FAILED]
    assert "Cancelled by its user" in ElementAttempt.objects.get().log
    assert Callback.objects.count() == 1
    assert not stopping.cancel(job)
    assert not scene.movers()


def test_while_its_run_waits(scene: Scene) -> None:
    job = scene.job()
    scene.movers()
    Run.objects.update(state=State.PENDING, node=None, lease_until=None)
    assert stopping.cancel(job, operator=True)
    assert Run.objects.get().state == State.CANCELLED
    settle()
    assert statuses(ended(job)) == [Status.FAILED]
    assert "Cancelled by an operator" in ElementAttempt.objects.get().log


def test_while_it_lists(scene: Scene) -> None:
    job = scene.job()
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", entry("a"), entry("b")))
    assert stopping.cancel(job)
    assert Run.objects.get().cancel_requested_at is not None
    job.refresh_from_db()
    assert explaining.explain(job)["reasons"][0]["code"] == "cancelling"
    settle()
    mover.finish(State.CANCELLED)
    settle()
    assert statuses(ended(job)) == [Status.FAILED]


def test_a_listing_that_ends_after_all(scene: Scene) -> None:
    """What it found is never begun."""
    job = scene.job()
    (mover,) = scene.movers()
    stopping.cancel(job)
    mover.report(begin(0), folder("/tree", entry("a"), entry("b")), end(0, names=2))
    mover.finish(State.CANCELLED)
    settle()
    assert statuses(ended(job)) == [Status.DONE, Status.FAILED, Status.FAILED]


def test_while_elements_run_wait_and_have_ended(scene: Scene) -> None:
    job = scene.opened(scene.job(), folder("/tree", *(entry(f"f{each}") for each in range(800))))
    (first, second) = scene.movers()
    first.report(end(1, moved=3), begin(2), end(3, ok=False))
    assert stopping.cancel(job)
    assert_books()
    settle()
    assert first.orders() is None
    first.report(end(2, moved=3))  # it had come so far
    first.finish(State.CANCELLED)
    settle()
    second.finish(State.CANCELLED)
    settle()
    job = ended(job)
    assert (job.num_done, job.num_failed) == (3, 798)
    logs = ElementAttempt.objects.filter(log__contains="Cancelled by its user").count()
    assert logs == 798


def test_what_failed_is_tried_again(scene: Scene) -> None:
    job = scene.opened(
        scene.job(callback_url="http://127.0.0.1:9/h"), folder("/tree", entry("a"), entry("b"))
    )
    (mover,) = scene.movers()
    mover.report(end(1, moved=3), end(2, ok=False, again=False))
    mover.finish()
    ended(job)
    assert stopping.retry(job) == 1
    job.refresh_from_db()
    assert (job.finished_at, job.num_submitted, job.num_failed) == (None, 1, 0)
    assert elements(job)[2].max_tries == 3
    (again,) = scene.movers()
    orders = again.orders()
    assert orders is not None
    assert [(item["n"], item["attempt"], item["last"]) for item in orders["elements"]] == [(2, 2, False)]
    again.report(end(2, 2, moved=3))
    ended(job)
    assert list(Callback.objects.order_by("pk").values_list("sequence", flat=True)) == [1, 2]
    assert Callback.objects.order_by("pk")[1].next_at is None  # its turn comes after the first one
    assert stopping.retry(job) == 0


def test_a_cancelled_job_can_be_tried_again(scene: Scene) -> None:
    job = scene.opened(scene.job(Type.REMOVE), folder("/tree", entry("a")))
    (mover,) = scene.movers()
    stopping.cancel(job)
    with pytest.raises(Conflict, match="is being cancelled"):
        stopping.retry(job)
    mover.finish(State.CANCELLED)
    settle()
    assert statuses(ended(job)) == [Status.DONE, Status.FAILED, Status.FAILED]
    assert stopping.retry(job) == 2
    for number in (1, 2):
        (mover,) = scene.movers()
        assert mover.told() == [number]
        mover.report(end(number, 2))
        mover.finish()
    assert statuses(ended(job)) == [Status.DONE] * 3


def test_a_listing_that_failed_can_be_tried_again(scene: Scene) -> None:
    job = scene.job(max_tries=1)
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", entry("a")), end(0, ok=False))
    mover.finish()
    settle()
    assert statuses(ended(job)) == [Status.FAILED]
    assert stopping.retry(job) == 1
    job = scene.opened(job, folder("/tree", entry("a")), attempt=2)
    assert statuses(job) == [Status.DONE, Status.NEW]


def test_many_elements_end_in_pieces(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "PIECE", 7)
    monkeypatch.setattr("workqueue.book.settling.PIECE", 7)
    job = scene.opened(scene.job(), folder("/tree", *(entry(f"f{each}") for each in range(40))))
    stopping.cancel(job)
    assert_books()
    settle()
    assert ended(job).num_failed == 40
    assert stopping.retry(job) == 40
