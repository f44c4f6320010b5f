"""A hundred thousand names, flat: what one report costs does not depend on what came before it."""

from __future__ import annotations

import resource

from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.integration.workqueue.scene import FOLDER, Scene, begin, end, entry, folder, wire
from workqueue import book
from workqueue.book import dispatching
from workqueue.models import Batch, Element, ListingPart
from workqueue.models.jobs import Type


def test_a_hundred_thousand_names(scene: Scene) -> None:
    job = scene.job(Type.COPY, "/tree", "/copy")
    (mover,) = scene.movers()
    mover.report(begin(0), folder("/tree", *(entry(f"d{number}", FOLDER) for number in range(100))))
    offset = book.reported_until(mover.lease)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    costs = []
    for number in range(100):
        names = [entry(f"{each:04}-with a name of usual length.data", size=each) for each in range(1000)]
        lines = wire(folder(f"/tree/d{number}", *names))
        if number % 33:
            mover.enter(offset, lines)
        else:
            with CaptureQueriesContext(connection) as asked:
                mover.enter(offset, lines)
            costs.append(len(asked))
        offset += sum(map(len, lines))
    mover.enter(offset, wire(end(0, names=100_100)))
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(costs) == 4
    assert len(set(costs)) == 1, costs
    assert grown_mb < 64, f"{grown_mb:.0f} MB for reports of 0.1 MB each"
    job.refresh_from_db()
    assert (job.num_new, job.elements) == (100_000, 100_001)
    assert sum(ListingPart.objects.values_list("names", flat=True)) == 100_100
    mover.finish()
    dispatching.look()
    first = Batch.objects.filter(job=job, phase=1).order_by("pk")[0]
    assert Element.objects.filter(batch=first).count() == dispatching.ELEMENTS
