"""Who gets what, and when: never twice, in order, within the limits, fairly."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.integration.engine_rows import together
from tests.integration.workqueue.scene import (
    Scene,
    assert_books,
    batch_of,
    begin,
    elements,
    end,
    entry,
    folder,
    settle,
    statuses,
)
from workers import secrets
from workers.models import Run, Shape, Tenant
from workers.tenants import limits
from workers.vocabulary.states import Reason, State
from workers.vocabulary.transfers.orders import Orders
from workqueue.book import dispatching, explaining, stopping
from workqueue.models import Batch, Credential, Element, Job, Link, Site
from workqueue.models.jobs import Status, Type
from workqueue.receipts.manifest import manifest


def tree(count: int, size: int = 3) -> dict[str, Any]:
    return folder("/tree", *(entry(f"f{number}", size=size) for number in range(count)))


@pytest.mark.django_db(transaction=True)
def test_many_at_once_never_hand_an_element_out_twice(settings: Any) -> None:
    settings.GANTRY_LINK_STREAMS = 1000
    settings.GANTRY_SITE_STREAMS = 1000
    scene = Scene()
    jobs = [scene.job(Type.COPY, f"/tree{number}", f"/copy{number}") for number in range(6)]
    for mover in scene.movers():
        number = jobs.index(batch_of(mover).job)
        names = [entry(f"f{each}") for each in range(900)]
        mover.report(folder(f"/tree{number}", *names), end(0, names=900))
        mover.finish()
    together(*[dispatching.look] * 6)
    dispatching.look()
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT b.id, count(e.number), min(s.n) FROM workqueue_batch b
               LEFT JOIN workqueue_element e ON e.batch_id = b.id
               CROSS JOIN LATERAL (SELECT count(*) AS n FROM workers_run r WHERE r.id = b.run_id) s
               WHERE b.closed_at IS NULL GROUP BY b.id"""
        )
        rows = cursor.fetchall()
    assert sum(count for _, count, _ in rows) == 6 * 900
    assert all(count > 0 and runs == 1 for _, count, runs in rows)
    assert {job.num_new for job in Job.objects.all()} == {0}
    told = [number for mover in scene.claim() for number in mover.told()]
    assert len(told) == 6 * 900
    assert_books()


def test_a_batch_is_bounded_by_number_and_by_size(scene: Scene, settings: Any) -> None:
    job = scene.opened(scene.job(), folder("/tree", *(entry(f"f{each}") for each in range(11000))))
    (first, *_) = scene.movers()
    assert len(first.told()) == 5000
    big = scene.opened(
        scene.job(src="/big", dst="/large", source=scene.site("other", "/data/other")),
        folder("/big", *(entry(f"f{each}", size=3 << 30) for each in range(5))),
    )
    batches = Batch.objects.filter(job=big, phase=1).order_by("pk")
    dispatching.look()
    assert [batch.element_set.count() for batch in batches][:1] == [2]
    assert job.num_new == 11000


def test_streams_bind_and_the_wait_says_so(scene: Scene) -> None:
    scene.source.max_active_out = 5
    scene.source.save()
    first = scene.job(Type.LIST)
    second = scene.job(Type.LIST)
    third = scene.job(Type.LIST)
    (one, two) = scene.movers()
    assert [batch_of(mover).streams for mover in (one, two)] == [4, 1]
    third.refresh_from_db()
    assert third.waiting_for == "5 of at most 5 streams out of here are taken: it waits for its turn"
    told = explaining.explain(third)
    assert (told["state"], told["position"]) == ("SUBMITTED", 2)
    assert third.waiting_for in [item["message"] for item in told["reasons"]]
    one.report(end(0, names=0))
    (three,) = scene.movers()
    assert batch_of(three).job == third
    assert {first.pk, second.pk} == {batch_of(one).job_id, batch_of(two).job_id}


def test_a_link_has_its_own_streams(scene: Scene) -> None:
    Link.objects.create(source=scene.source, target=scene.target, streams=2)
    job = scene.opened(scene.job(), tree(1000))
    (one, two) = scene.movers()
    assert [batch_of(mover).streams for mover in (one, two)] == [1, 1]
    orders = one.orders()
    assert orders is not None
    assert Orders.from_json(orders).streams == 1
    assert job.elements == 1001


def test_a_large_job_starves_nobody(scene: Scene) -> None:
    """Streams that it has taken are not taken back; the next ones are the others'."""
    scene.opened(scene.job(src="/tree"), tree(9000))
    large = scene.movers()
    assert len(large) == 2  # half of the link each
    small = [scene.job(Type.COPY, f"/small{number}", f"/there{number}") for number in range(3)]
    for mover in scene.movers():
        number = small.index(batch_of(mover).job)
        mover.report(folder(f"/small{number}", entry("f")), end(0, names=1))
        mover.finish()
    assert not scene.movers()
    large[0].report(*(end(number) for number in large[0].told()))
    after = [batch_of(mover).job for mover in scene.movers()]
    assert after[:3] == small


def test_a_lower_priority_goes_first(scene: Scene) -> None:
    scene.source.max_active_out = 4
    scene.source.save()
    late, soon = scene.job(Type.LIST, priority=7), scene.job(Type.LIST, priority=1)
    assert [batch_of(mover).job for mover in scene.movers()] == [soon]
    assert late.num_new == 1


@pytest.mark.parametrize("ban", ["wait", "wait_as"])
def test_a_banned_site_waits_and_says_so(scene: Scene, ban: str) -> None:
    job = scene.job(Type.COPY)
    Site.objects.filter(pk=scene.target.pk).update(ban=ban, ban_message="disks are changed")
    assert not scene.movers()
    job.refresh_from_db()
    assert job.waiting_for == "site there is banned: disks are changed"
    assert explaining.explain(job)["reasons"][0]["code"] == "banned"
    Site.objects.filter(pk=scene.target.pk).update(ban_until=timezone.now() - timedelta(seconds=1))
    assert len(scene.movers()) == 1
    assert Site.objects.get(pk=scene.target.pk).ban == ""


def test_a_ban_reaches_what_waits_for_a_node(scene: Scene) -> None:
    job = scene.job(Type.LIST)
    (mover,) = scene.movers()
    Site.objects.filter(pk=scene.source.pk).update(ban="wait")
    assert mover.orders() is None
    mover.finish()
    settle()
    assert statuses(job) == [Status.SUBMITTED]
    assert elements(job)[0].attempts == 0


def test_a_ban_that_cancels(scene: Scene) -> None:
    job = scene.job(Type.COPY)
    Site.objects.filter(pk=scene.source.pk).update(ban="cancel")
    assert not scene.movers()
    job.refresh_from_db()
    assert job.finished_at is not None
    assert job.cancelled_by_operator
    assert statuses(job) == [Status.FAILED]


def test_pull_jobs_are_left_to_pull_workers(scene: Scene) -> None:
    job = scene.job(Type.LIST, pull=True)
    assert not scene.movers()
    assert "pull" in [item["code"] for item in explaining.explain(job)["reasons"]]


def test_a_folder_that_no_node_offers(scene: Scene) -> None:
    scene.source.endpoints = [{"protocol": "LOCAL", "path": "/elsewhere"}]
    scene.source.save()
    job = scene.job(Type.LIST)
    assert not scene.movers()
    job.refresh_from_db()
    assert "no node offers the folder /elsewhere" in job.waiting_for
    assert not Batch.objects.exists()


def test_what_a_node_needs_is_what_both_ends_need(scene: Scene) -> None:
    scene.target.endpoints = [{"protocol": "SFTP", "host": "far", "port": 22, "path": "/"}]
    scene.target.save()
    scene.job(Type.COPY)
    dispatching.look()
    assert Shape.objects.get().constraints == {
        "local:/data": ["yes"],
        "storage_local": ["yes"],
        "storage_sftp": ["yes"],
    }
    run = Run.objects.get()
    assert (run.family, run.kind, run.owner_id) == ("workqueue", "transfer", str(Job.objects.get().pk))
    assert run.private_to == scene.user.pk


def test_a_tenant_at_its_limit_waits(scene: Scene) -> None:
    Tenant.objects.filter(pk=scene.tenant.pk).update(limits={"waiting_runs": 1})
    limits.forget()
    first, second = scene.job(Type.LIST), scene.job(Type.LIST)
    dispatching.look()
    limits.forget()
    second.refresh_from_db()
    assert "runs waiting (waiting_runs)" in second.waiting_for
    assert Batch.objects.get().job == first
    assert second.num_new == 1


def test_an_endpoint_that_failed_is_avoided(scene: Scene) -> None:
    """The preferred one first, then the others in turn."""
    scene.source.endpoints = [
        {"protocol": "WEBDAV", "host": "a", "path": "/data"},
        {"protocol": "SFTP", "host": "b", "path": "/data"},
        {"protocol": "SFTP", "host": "c", "path": "/data"},
    ]
    scene.source.save()
    scene.node.attributes |= {"storage_webdav": "yes", "storage_sftp": "yes"}
    scene.node.save()
    scene.job(Type.LIST, protocol="SSH", max_tries=4)
    hosts = []
    for attempt, side in enumerate(("src", "src", "dst", "src"), 1):
        (mover,) = scene.movers()
        orders = mover.orders()
        assert orders is not None
        hosts.append(orders["source"]["host"])
        mover.report(end(0, attempt, ok=False, avoid=side))
        mover.finish()
    assert hosts == ["b", "a", "c", "c"]


def test_orders_say_who_and_how_fast(scene: Scene, settings: Any) -> None:
    settings.GANTRY_SECRET_KEYS = ["qh9Ge3vXvHnJmLkPzWqkQ4mJ3kqfB1k2pQ0q3mYx0aI="]
    scene.source.max_bytes_per_s = 800
    scene.source.max_active_out = 8
    scene.source.by_operator = False
    scene.source.save()
    kept = secrets.store(scene.tenant.pk, "site", "s3cret")
    Credential.objects.create(site=scene.source, user=scene.user, username="ann", password_id=kept)
    scene.job(Type.LIST)
    (mover,) = scene.movers()
    orders = Orders.from_json(mover.orders() or {})
    assert orders.source.credentials.password == "s3cret"
    assert (orders.source.guarded, orders.rate, orders.streams) == (True, 400.0, 4)
    assert orders.tag.endswith(f"-{orders.job}")
    assert (orders.host, orders.elements[0].act) == ("host-1", "LIST")


def test_credentials_that_cannot_be_read_are_waited_for(scene: Scene, settings: Any) -> None:
    """The key that they were stored with is gone: the job says which secret it is and what to do, no try is
    used up, it can be cancelled, others go on; and it goes on by itself when the key is back."""
    keys = ["qh9Ge3vXvHnJmLkPzWqkQ4mJ3kqfB1k2pQ0q3mYx0aI=", "Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6MTIzNDU="]
    settings.GANTRY_SECRET_KEYS = keys[:1]
    kept = secrets.store(scene.tenant.pk, "site", "s3cret")
    Credential.objects.create(site=scene.source, user=scene.user, key_id=kept)
    settings.GANTRY_SECRET_KEYS = keys[1:]
    job, given_up = scene.job(Type.LIST), scene.job(Type.LIST)
    other = scene.job(Type.LIST, source=scene.target)
    for mover in scene.movers():
        orders = mover.orders()
        assert (orders is None) is (batch_of(mover).job_id != other.pk)
        if orders is not None:
            mover.report(end(0, names=0))
        mover.finish()
    settle()
    job.refresh_from_db()
    why = f"its credentials: secret {kept} cannot be read with any key of GANTRY_SECRET_KEYS"
    assert job.waiting_for.startswith(why)
    assert explaining.explain(job)["reasons"][0]["message"] == job.waiting_for
    assert (elements(job)[0].status, elements(job)[0].attempts) == (Status.SUBMITTED, 0)
    assert scene.movers() == [], "not at once"
    assert stopping.cancel(given_up)
    assert statuses(given_up) == [Status.FAILED]
    settings.GANTRY_SECRET_KEYS = keys[::-1]
    Element.objects.update(not_before=None)
    (mover,) = scene.movers()
    assert Orders.from_json(mover.orders() or {}).source.credentials.key == "s3cret"
    job.refresh_from_db()
    assert job.waiting_for == ""
    mover.report(end(0, names=0))
    assert statuses(job) == [Status.DONE]


def test_what_is_tried_again_waits_its_time(scene: Scene, settings: Any) -> None:
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 100.0
    job = scene.job(Type.LIST)
    (mover,) = scene.movers()
    mover.report(end(0, ok=False, log="connection refused"))
    mover.finish()
    assert statuses(job) == [Status.SUBMITTED]
    assert not scene.movers()
    job.refresh_from_db()
    told = explaining.explain(job)["reasons"][0]["message"]
    assert told.startswith("1 elements are tried again")
    assert told.endswith("; element 0: connection refused")
    Element.objects.update(not_before=timezone.now() - timedelta(seconds=60))
    (mover,) = scene.movers()
    orders = mover.orders()
    assert orders is not None
    assert (orders["elements"][0]["attempt"], orders["elements"][0]["last"]) == (2, True)


def test_explanations_of_runs_are_those_of_the_engine(scene: Scene) -> None:
    scene.node.runtimes = ["process"]
    scene.node.save()
    job = scene.job(Type.LIST)
    dispatching.look()
    job.refresh_from_db()
    told = explaining.explain(job)["reasons"]
    assert any(item["message"].startswith(f"run {Run.objects.get().pk}: ") for item in told)


def test_removals_say_what_they_wait_for(scene: Scene) -> None:
    job = scene.opened(scene.job(Type.REMOVE, "/tree"), folder("/tree", entry("a"), entry("b")))
    scene.movers()
    job.refresh_from_db()
    told = explaining.explain(job)["reasons"]
    words = "1 elements wait for 2 files such as /tree/a to be removed first"
    assert words in [item["message"] for item in told]


def test_one_writer_for_each_path_at_a_time(scene: Scene) -> None:
    """Catches two jobs that write the same file at once: the second one's elements wait, and it says so."""
    listing = folder("/tree", entry("same"), entry("other"))
    scene.opened(scene.job(), listing)
    (writer,) = scene.movers()
    second = scene.opened(scene.job(), listing)
    elsewhere = scene.opened(scene.job(dst="/elsewhere"), listing)
    assert [batch_of(item).job_id for item in scene.movers()] == [elsewhere.pk]
    second.refresh_from_db()
    assert second.waiting_for.startswith("another job writes to the same destination")
    assert "same destination" in str(explaining.explain(second)["reasons"])
    writer.report(begin(1), end(1))
    (next_one,) = scene.movers()
    assert (batch_of(next_one).job_id, next_one.told()) == (second.pk, [1]), "what has been written is free"
    writer.report(begin(2), end(2))
    writer.finish()
    (rest,) = scene.movers()
    assert rest.told() == [2]


def test_one_writer_where_a_folder_keeps_the_name(scene: Scene) -> None:
    """From the mover's first word on everybody goes by the path that is written: another job's element, the
    next try, the sweep. Catches two writers, and a part that nobody finds."""
    single = folder("/", entry("file"))
    first = scene.opened(scene.job(src="/file", dst="/folder", max_tries=2), single)
    (writer,) = scene.movers()
    writer.report(begin(1, part=True, version="v", dst="/folder/file"))
    second = scene.opened(scene.job(src="/file", dst="/folder/file"), single)
    assert scene.movers() == []
    second.refresh_from_db()
    assert second.waiting_for.startswith("another job writes to the same destination")
    stopping.cancel(second)
    writer.finish(State.FAILED, Reason.UNREACHABLE)
    settle()
    (again,) = scene.movers()
    orders = again.orders()
    assert orders is not None
    assert [(item["dst"], item["part"]) for item in orders["elements"]] == [("/folder/file", 1)]
    again.report(begin(1, 2, part=True, version="v"))
    again.finish(State.FAILED, Reason.TIMEOUT)
    settle()
    assert elements(first)[1].status == Status.FAILED
    (sweeper,) = scene.movers()
    orders = sweeper.orders()
    assert orders is not None
    assert [(item["dst"], item["part"]) for item in orders["sweep"]] == [("/folder/file", 2)]
    first.refresh_from_db()
    head, _, line = map(json.loads, b"".join(manifest(first)).splitlines())
    assert (head["root"], line["path"]) == ("/folder", "/folder/file")
