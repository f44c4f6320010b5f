"""How many streams a link has: success first, then throughput; each change says why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.integration.workqueue.scene import Scene, batch_of, end, entry, folder
from workqueue.book import flow
from workqueue.models import Link, LinkChange


@pytest.mark.parametrize(
    ("streams", "succeeded", "failed", "throughput", "before", "wanted", "words"),
    [
        (16, 90, 10, 5e6, 5e6, 8, "10 of 100 attempts failed: 8 streams instead of 16"),
        (3, 0, 20, 0.0, 0.0, 2, "20 of 20 attempts failed: 2 streams instead of 3"),
        (16, 100, 5, 6e6, 5e6, 18, "throughput 6.0 MB/s after 5.0 MB/s: 18 streams instead of 16"),
        (16, 100, 0, 2.5e3, 55.0, 18, "throughput 2.5 kB/s after 55 B/s: 18 streams instead of 16"),
        (16, 100, 0, 4e6, 5e6, 14, "throughput fell to 4.0 MB/s from 5.0 MB/s: 14 streams instead of 16"),
        (16, 100, 0, 5.1e6, 5e6, 16, "throughput steady at 5.1 MB/s: 16 streams, as before"),
        (64, 100, 0, 9e6, 5e6, 64, "throughput 9.0 MB/s after 5.0 MB/s: 64 streams, as before"),
        (2, 100, 0, 1e6, 5e6, 2, "throughput fell to 1.0 MB/s from 5.0 MB/s: 2 streams, as before"),
    ],
)
def test_the_rule(
    streams: int, succeeded: int, failed: int, throughput: float, before: float, wanted: int, words: str
) -> None:
    assert flow.decide(streams, succeeded, failed, throughput, before) == (wanted, words)


def test_a_link_adapts_to_what_became_of_its_files(scene: Scene, settings: Any) -> None:
    settings.GANTRY_LINK_LOOK_S = 0.0
    scene.opened(scene.job(), folder("/tree", *(entry(f"f{each}") for each in range(100))))
    (mover,) = scene.movers()
    mover.report(*(end(number, moved=3, elapsed=0.5) for number in range(1, 6)))
    Link.objects.update(looked_at=timezone.now() - timedelta(seconds=60))
    assert flow.adapt() == {"links_changed": 0}  # too few to say anything
    mover.report(*(end(number, ok=False) for number in range(6, 21)))
    mover.report(*(end(number, ok=False, again=False) for number in range(21, 41)))  # the files' own fault
    link = Link.objects.get()
    assert (link.succeeded, link.failed, link.moved, link.busy_s) == (5, 15, 15, 2.5)
    assert flow.adapt() == {"links_changed": 1}
    link.refresh_from_db()
    assert (link.streams, link.succeeded, link.failed) == (8, 0, 0)
    change = LinkChange.objects.get()
    assert (change.streams_before, change.streams, change.sentence) == (16, 8, link.sentence)
    assert link.sentence == "15 of 20 attempts failed: 8 streams instead of 16"
    mover.report(*(end(number, moved=3) for number in range(41, 101)))
    mover.finish()
    (again,) = scene.movers()
    assert batch_of(again).streams == 4
    assert flow.adapt() == {"links_changed": 0}  # its window has just begun
    Link.objects.update(looked_at=timezone.now() - timedelta(seconds=60))
    assert flow.adapt() == {"links_changed": 1}
    again.report(*(end(number, 2, moved=3) for number in again.told()))
