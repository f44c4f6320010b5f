"""From the first element to the end of a job, of each type."""

from __future__ import annotations

from tests.integration.workqueue.scene import (
    FOLDER,
    LINK,
    PIPE,
    Scene,
    begin,
    elements,
    end,
    entry,
    folder,
    listed,
    statuses,
)
from workers.models import Callback, Run
from workqueue.models import Batch, ElementAttempt, ListingPart
from workqueue.models.jobs import Status, Type


def test_a_listing_from_its_begin_to_its_end(scene: Scene) -> None:
    job = scene.job(Type.LIST, extra_opts={"depth": 1, "shiny": True})
    assert (job.num_new, job.elements) == (1, 1)
    (mover,) = scene.movers()
    job.refresh_from_db()
    assert (job.num_new, job.num_submitted) == (0, 1)
    orders = mover.orders()
    assert orders is not None
    assert (orders["job_act"], orders["options"], orders["target"]) == ("LIST", {"depth": 1}, None)
    assert orders["source"]["path"] == "/data/here"
    mover.report(begin(0), folder("/tree", entry("a"), entry("b", FOLDER)))
    job.refresh_from_db()
    assert job.num_running == 1
    mover.report(folder("/tree/b", entry("c")), end(0, names=3))
    mover.finish()
    job.refresh_from_db()
    assert job.finished_at is not None
    assert statuses(job) == [Status.DONE]
    told = ElementAttempt.objects.get()
    assert told.log.startswith("Job run on host: host-1, returncode: 0, timestamp: ")
    assert told.log.splitlines()[0].endswith("ignored extra_opts: shiny")
    assert told.listing_count == 3
    assert sum(part.names for part in ListingPart.objects.all()) == 3


def test_a_copy_from_its_begin_to_its_end(scene: Scene) -> None:
    job = scene.job(Type.COPY, "/tree/", "/copy/", callback_url="http://127.0.0.1:9/hook")
    job = scene.opened(
        job,
        folder("/tree", entry("a"), entry("sub", FOLDER), entry("l", LINK), entry("p", PIPE)),
        folder("/tree/sub", entry("b", size=5), entry("none", FOLDER)),
        folder("/tree/sub/none"),
    )
    assert [(item.src_filepath, item.dst_filepath, item.size) for item in elements(job)[1:]] == [
        ("/tree/a", "/copy/a", 3),
        ("/tree/sub/b", "/copy/sub/b", 5),
        ("/tree/sub/none/", "/copy/sub/none/", 0),
    ]
    assert (job.num_new, job.num_done, job.bytes_total) == (3, 1, 8)
    (mover,) = scene.movers()
    assert mover.told() == [1, 2, 3]
    mover.report(begin(1, size=3, version="v1", part=True))
    mover.report({"r": "move", "n": 1, "moved": 2, "instant": 1.0, "elapsed": 2.0})
    mover.report(begin(1, size=3, version="v2", part=True))
    moving = elements(job)[1]
    assert moving.source_version == "v2"
    assert (moving.status, moving.transferred, moving.part_attempt) == (Status.RUNNING, 2, 1)
    mover.report(end(1, moved=3, checksum="adler32:1"), end(2, moved=5), end(3))
    job.refresh_from_db()
    assert job.finished_at is not None
    assert (job.num_done, job.bytes_done) == (4, 8)
    assert not Batch.objects.filter(closed_at=None).exists()
    assert elements(job)[1].checksum == "adler32:1"
    told = Callback.objects.get()
    assert (told.owner_kind, told.owner_id, told.event) == ("job", str(job.pk), "ended")
    mover.finish()


def test_a_single_file_keeps_what_was_asked_for(scene: Scene) -> None:
    job = scene.opened(scene.job(Type.COPY, "/tree/f", "/there/"), folder("/tree", entry("f")))
    assert [(item.src_filepath, item.dst_filepath) for item in elements(job)[1:]] == [("/tree/f", "/there/")]


def test_what_is_removed_waits_for_what_is_below(scene: Scene) -> None:
    job = scene.opened(
        scene.job(Type.REMOVE, "/tree"),
        folder("/tree/sub/deep", entry("d")),
        folder("/tree/sub", entry("deep", FOLDER), entry("b"), entry("l", LINK)),
        folder("/tree", entry("a"), entry("sub", FOLDER)),
    )
    order = ["deep/d", "b", "l", "deep/"]
    paths = [f"/tree/sub/{name}" for name in order] + ["/tree/a", "/tree/sub/", "/tree/"]
    assert [item.src_filepath for item in elements(job)[1:]] == paths
    for wave in ([1, 2, 3, 5], [4], [6], [7]):
        (mover,) = scene.movers()
        assert mover.told() == wave
        assert not scene.movers()  # what is next waits until all of this has ended
        mover.report(*(end(number) for number in wave))
        mover.finish()
    job.refresh_from_db()
    assert job.finished_at is not None


def test_a_rename_looks_first(scene: Scene) -> None:
    job = scene.opened(scene.job(Type.RENAME, "/a", "/b"), folder("/", entry("a")))
    assert [(item.type, item.src_filepath, item.dst_filepath) for item in elements(job)] == [
        (Type.LIST, "/a", None),
        (Type.RENAME, "/a", "/b"),
    ]
    (mover,) = scene.movers()
    mover.report(end(1))
    mover.finish()
    job.refresh_from_db()
    assert job.finished_at is not None


def test_a_folder_is_made(scene: Scene) -> None:
    job = scene.job(Type.MKDIR, "/new")
    (mover,) = scene.movers()
    mover.report(end(0, ok=False, code=17, again=False, log="it exists"))
    mover.finish()
    assert statuses(job) == [Status.FAILED]
    job.refresh_from_db()
    assert job.finished_at is not None


def test_a_dry_run_touches_nothing(scene: Scene) -> None:
    job = scene.job(Type.COPY, protocol="DUMMY")
    assert (job.num_done, job.elements) == (1, 1)
    assert job.finished_at is not None
    assert not scene.movers()
    assert not Run.objects.exists()
    assert "COPY /tree at here to /copy at there" in ElementAttempt.objects.get().log


def test_a_job_without_anything_to_do_is_done(scene: Scene) -> None:
    job = scene.job(Type.COPY)
    (mover,) = scene.movers()
    mover.report(*listed(folder("/", entry("tree", PIPE))))
    job.refresh_from_db()
    assert statuses(job)[0] == Status.DONE
    mover.finish()
