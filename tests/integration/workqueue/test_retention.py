"""Jobs go when their tenant's time is over, in pieces, with all that belongs to them."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from tests.integration.workqueue.scene import Scene, begin, end, entry, folder
from workers.models import Callback, Tenant
from workqueue.models import Batch, Element, ElementAttempt, Job, ListingPart
from workqueue.models.jobs import Type
from workqueue.retention import prune

ALL = (Job, Element, ElementAttempt, ListingPart, Batch)


def _finished(scene: Scene, days: int, files: int = 30) -> Job:
    job = scene.opened(
        scene.job(callback_url="http://127.0.0.1:9/h"),
        folder("/tree", *(entry(f"f{each}") for each in range(files))),
    )
    (mover,) = scene.movers()
    mover.report(*(end(number, moved=3) for number in mover.told()))
    mover.finish()
    Job.objects.filter(pk=job.pk).update(finished_at=timezone.now() - timedelta(days=days))
    return job


def test_all_of_a_job_goes_and_nothing_of_another(scene: Scene) -> None:
    Tenant.objects.filter(pk=scene.tenant.pk).update(retention={"families": {"workqueue": {"runs_d": 10}}})
    old, young = _finished(scene, 11), _finished(scene, 9)
    rounds = []
    while any((gone := prune(1)).values()):
        rounds.append(gone)
    assert len(rounds) > 2  # 63 rows, 20 of them at once
    assert sum(gone["transfer_jobs"] for gone in rounds) == 1
    assert not Job.objects.filter(pk=old.pk).exists()
    for model in (Element, ElementAttempt, ListingPart, Batch):
        assert {item.job_id for item in model.objects.all()} == {young.pk}
    assert [item.owner_id for item in Callback.objects.all()] == [str(young.pk)]


def test_what_is_not_finished_stays(scene: Scene) -> None:
    Tenant.objects.filter(pk=scene.tenant.pk).update(retention={"runs_d": 1})
    job = scene.job(Type.LIST)
    (mover,) = scene.movers()
    mover.report(begin(0))
    Job.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(days=400))
    assert prune(100) == {"transfer_elements": 0, "transfer_jobs": 0}


def test_nothing_goes_where_it_is_kept_for_ever(scene: Scene) -> None:
    Tenant.objects.filter(pk=scene.tenant.pk).update(retention={"runs_d": 0})
    _finished(scene, 4000)
    assert prune(100) == {"transfer_elements": 0, "transfer_jobs": 0}
