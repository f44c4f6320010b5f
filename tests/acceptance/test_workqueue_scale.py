"""A million names, a hundred thousand files, 5 GiB: memory stays flat, everybody else is answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.support.cluster import Api, Cluster, Process
from tests.support.fixtures import Account
from tests.support.machine import with_children
from tests.support.transfers import movers
from tests.support.waiting import limit
from tests.support.watching import Again, Memory
from tests.support.workqueue import ROOT, WorkqueueClient
from workqueue.models import Element, Job

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True), pytest.mark.timeout(2400)]

_NAME = b'"file-'


class Watch(Again):
    """Samples while work goes on: memory of each process, how long the job list takes, do counters add up."""

    def __init__(self, user: WorkqueueClient, processes: dict[str, int], home: Path) -> None:
        super().__init__(self._look, 0.2)
        self._user = user
        self._home = home
        self._processes = processes
        self._memory = Memory(proportional=True)
        self.lists: list[float] = []
        self.wrong: list[str] = []

    def _look(self) -> None:
        for name, root in self._processes.items():
            for pid in with_children(root):
                self._memory.look([pid], f"{name} {pid}")
        self._memory.look(movers(self._home), "mover")  # they come and go: the largest of them all
        began = time.perf_counter()
        rows = self._user.http.get(f"{ROOT}/jobs").json()
        self.lists.append(time.perf_counter() - began)
        self.wrong += [str(row) for row in rows if not _adds_up(row)]

    def report(self) -> str:
        lists = sorted(self.lists)
        first, most = self._memory.first, self._memory.most
        memory = ", ".join(f"{key}: {first[key]:.0f} to {most[key]:.0f}" for key in most)
        middle, late = lists[len(lists) // 2] * 1000, lists[int(len(lists) * 0.99)] * 1000
        return f"list {middle:.1f} ms, p99 {late:.1f} ms of {len(lists)}; MiB (PSS) {memory}"

    def check(self) -> None:
        assert self.wrong == []
        assert self._memory.grown("mover") < 100, self.report()
        assert max(self._memory.most.values()) < 300, self.report()


def _adds_up(row: dict[str, Any]) -> bool:
    """What is counted is never more than what is there; DONE means that nothing is left."""
    counts = {name: row[f"num_{name}"] for name in ("new", "submitted", "running", "done", "failed")}
    total = sum(counts.values())
    if row["status"] in ("DONE", "FAILED"):
        return bool(
            total == row["num_elements"] and not counts["new"] + counts["submitted"] + counts["running"]
        )
    return bool(total <= row["num_elements"] and min(counts.values()) >= 0)


@contextmanager
def service(
    cluster: Cluster, operator: Account, folder: Path
) -> Iterator[tuple[WorkqueueClient, Process, Api]]:
    node = cluster.node(mem_mb=65536, settings={"GANTRY_LOCAL_SITES": str(folder)})
    api = cluster.api()
    with WorkqueueClient(api, operator) as client:
        yield client, node, api


def recounted(job_id: int) -> None:
    job = Job.objects.get(pk=job_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT status, count(*) FROM workqueue_element WHERE job_id = %s GROUP BY status", [job_id]
        )
        found = dict(cursor.fetchall())
    told = [job.num_new, job.num_done, job.num_failed, job.num_submitted, job.num_running]
    assert told == [found.get(status, 0) for status in range(5)]
    assert job.elements == sum(found.values()) == Element.objects.filter(job=job).count()


def plant(folder: Path, names: int, text: str = "") -> None:
    for number in range(names // 1000):
        place = folder / f"{number // 100}" / f"{number}"
        place.mkdir(parents=True)
        for name in range(1000):
            (place / f"file-{name:04}").write_text(text)


@pytest.mark.parametrize("names", [1_000_000])
def test_a_listing_of_a_million_names(
    cluster: Cluster, operator: Account, tmp_path: Path, names: int
) -> None:
    plant(tmp_path / "tree", names)
    with service(cluster, operator, tmp_path) as (user, node, api):
        here = user.local("here", tmp_path)
        with Watch(user, {"worker": node.pid, "api": api.pid}, cluster.folder / "n1") as watch:
            began = time.monotonic()
            job = user.post("list", here, "/tree")
            assert user.ended(job, 600) == "DONE"
            took = time.monotonic() - began
            read, end, began = 0, b"", time.monotonic()
            with user.http.stream("GET", f"{ROOT}/jobs/{job}/output", timeout=limit(600)) as answer:
                for piece in answer.iter_raw():
                    text = end + piece
                    read += text.count(_NAME)
                    end = text[-len(_NAME) + 1 :]
            fetched = time.monotonic() - began
        print(f"\nLIST of {names:,}: {took:.1f} s; its output in {fetched:.1f} s; {watch.report()}")
        assert read == 2 * names, "in listing and in entries"
        recounted(job)
        watch.check()


@pytest.mark.parametrize("files", [100_000])
def test_a_copy_of_a_hundred_thousand_files(
    cluster: Cluster, operator: Account, tmp_path: Path, files: int
) -> None:
    plant(tmp_path / "tree", files, "some text\n")
    with service(cluster, operator, tmp_path) as (user, node, api):
        here = user.local("here", tmp_path)
        with Watch(user, {"worker": node.pid, "api": api.pid}, cluster.folder / "n1") as watch:
            began = time.monotonic()
            job = user.post("copy", here, "/tree", here, "/copy")
            assert user.ended(job, 1200) == "DONE"
            copied = time.monotonic() - began
            recounted(job)
            began = time.monotonic()
            assert (tmp_path / "copy" / "0" / "0" / "file-0000").read_text() == "some text\n"
            gone = user.post("remove", here, "/copy")
            assert user.ended(gone, 1200) == "DONE"
            removed = time.monotonic() - began
        print(f"\nCOPY of {files:,}: {copied:.1f} s, REMOVE: {removed:.1f} s; {watch.report()}")
        recounted(gone)
        assert not (tmp_path / "copy").exists()
        watch.check()


@pytest.mark.parametrize("size", [5 << 30])
def test_a_copy_of_five_gib(cluster: Cluster, operator: Account, tmp_path: Path, size: int) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        for place in range(0, size, 1 << 30):  # sparse, but for a piece in each GiB
            file.seek(place)
            file.write(b"%d\n" % place)
        file.truncate(size)
    with service(cluster, operator, tmp_path) as (user, node, api):
        here = user.local("here", tmp_path)
        with Watch(user, {"worker": node.pid, "api": api.pid}, cluster.folder / "n1") as watch:
            began = time.monotonic()
            job = user.post("copy", here, "/big", here, "/copy")
            assert user.ended(job, 1200) == "DONE"
            took = time.monotonic() - began
        print(f"\nCOPY of {size >> 30} GiB: {took:.1f} s; {watch.report()}")
        with (tmp_path / "copy").open("rb") as file:
            assert file.seek(0, 2) == size
            for place in range(0, size, 1 << 30):
                file.seek(place)
                assert file.readline().startswith(b"%d\n" % place)
        (tmp_path / "copy").unlink()
        watch.check()
