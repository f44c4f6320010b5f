"""Transfers under faults: movers as processes, waits that are cut short, what is true at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, pids_under
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tests.support.workqueue import WorkqueueClient, shape
from workqueue.models import Batch, Element, ElementAttempt, Job
from workqueue.models.jobs import Status, Type

#: Seconds, like the settings of the same names.
QUICK = {"GANTRY_TRANSFER_RETRY_BASE_S": "0.1", "GANTRY_TRANSFER_LOOK_S": "0.3"}
MIB = 1 << 20
#: Bytes/s of a site whose large files are to be caught in the middle; a batch has its share of streams of it.
SLOW = {"max_bytes_per_s": 12 * MIB}
FREE = {"max_bytes_per_s": None}
LARGE = 48 * MIB


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    server = Sshd()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def user(cluster: Cluster, operator: Account, tmp_path: Path) -> Iterator[WorkqueueClient]:
    """A client of a service whose nodes offer ``tmp_path``; there is no node yet."""
    cluster.env |= {**QUICK, "GANTRY_LOCAL_SITES": str(tmp_path), "GANTRY_NODE_LOST_AFTER_S": "120"}
    cluster.env["GANTRY_MAX_CRASHES"] = "1000"
    with WorkqueueClient(cluster.api(), operator) as client:
        yield client


def limits(user: WorkqueueClient, site: int, what: Mapping[str, int | None]) -> None:
    user.call("PUT", f"/sites/{site}/limits", what)


def content(size: int, seed: bytes) -> bytes:
    """No two places of it are alike: a mixture is another file."""
    block = seed.ljust(64, b".") * 1008
    return b"".join(b"%08d%s" % (number, block) for number in range(size // (len(block) + 8) + 1))[:size]


def movers(home: Path) -> list[int]:
    """Processes of movers on the node whose folder this is."""
    found = []
    for pid in pids_under(home / "mover"):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"workers.runtimes.transfer.mover" in words and words[-2].endswith(b"/orders"):
            found.append(pid)
    return found


def hurry() -> None:
    """Whatever waits for its next try has waited long enough."""
    Element.objects.filter(not_before__isnull=False).update(not_before=None)


def ended(user: WorkqueueClient, job: int, timeout_s: float = 90.0) -> str:
    """Wait for a job's end in a hurry; DONE or FAILED."""

    def over() -> bool:
        hurry()
        return user.status(job) in ("DONE", "FAILED")

    wait_until(over, timeout_s, 0.1, f"job {job} ends", lambda: rows(job))
    return user.status(job)


def rows(job: int) -> list[tuple[object, ...]]:
    """(number, status, attempts, attempt of a part, bytes) of what is not done."""
    names = ("number", "status", "attempts", "part_attempt", "transferred", "batch_id")
    return list(Element.objects.filter(job=job).exclude(status=Status.DONE).values_list(*names))


def element(job: int, name: str) -> Element:
    """The COPY element of a file, by the end of its path."""
    return Element.objects.get(job=job, type=Type.COPY, src_filepath__endswith=f"/{name}")


def wait_moving(job: int, name: str, attempt: int = 1) -> Element:
    """Wait until a file is on its way, in this attempt or a later one, and the books know of its part."""

    def moving() -> Element | None:
        hurry()
        rows = Element.objects.filter(job=job, type=Type.COPY, src_filepath__endswith=f"/{name}")
        return rows.filter(status=Status.RUNNING, part_attempt__gte=attempt, transferred__gt=0).first()

    return wait_until(moving, 90, why=f"attempt {attempt} of {name} moves", see=lambda: rows(job))


def wait_rest_done(job: int, *names: str) -> None:
    """Wait until all elements but those of these files are done."""
    wait_until(
        lambda: (
            Element.objects.filter(job=job, type=Type.COPY).exists()
            and len(rows(job)) == len(names)
            and {row.src_filepath.rpartition("/")[2] for row in _undone(job)} == set(names)
        ),
        90,
        why=f"all but {names} are done",
        see=lambda: rows(job),
    )


def _undone(job: int) -> list[Element]:
    return list(Element.objects.filter(job=job).exclude(status=Status.DONE))


def attempts(job: int) -> dict[int, int]:
    """How many attempts each element has had, by its number."""
    return dict(Element.objects.filter(job=job).values_list("number", "attempts"))


def log_of(job: int, number: int, attempt: int) -> str:
    return ElementAttempt.objects.get(job_id=job, number=number, attempt=attempt).log


def assert_parts_gone(*folders: Path) -> None:
    """No part beside a target; those of what failed for good are swept in the end."""

    def parts() -> list[bytes]:
        hurry()
        return [name for folder in folders for name in _names(folder) if name.endswith(b".part")]

    wait_until(lambda: not parts(), why="parts are gone", see=parts)


def _names(folder: Path) -> list[bytes]:
    return [name for _, folders, files in os.walk(os.fsencode(folder)) for name in folders + files]


def assert_books(cluster: Cluster) -> None:
    """Every job has ended: its counters add up, each attempt was counted and has its log, nobody holds
    anything, and nothing is left on any node."""
    wait_until(
        lambda: not Batch.objects.filter(closed_at=None).exists(),
        why="batches are closed",
        see=lambda: list(Batch.objects.filter(closed_at=None).values()),
    )
    for job in Job.objects.all():
        assert job.finished_at is not None, f"job {job.pk} has not ended"
        told = [job.num_new, job.num_done, job.num_failed, job.num_submitted, job.num_running]
        found = [Element.objects.filter(job=job, status=status).count() for status in range(5)]
        assert told == found, f"the counters of job {job.pk} do not add up"
        assert job.elements == sum(found)
        logs: dict[int, list[ElementAttempt]] = {}
        for row in ElementAttempt.objects.filter(job=job).order_by("number", "attempt"):
            logs.setdefault(row.number, []).append(row)
        for one in Element.objects.filter(job=job):
            rows = logs.get(one.number, [])
            assert [row.attempt for row in rows] == list(range(1, one.attempts + 1)), f"attempts of {one}"
            assert all(row.log.startswith("Job run on host: ") for row in rows), f"logs of {one}"
            wanted = [Status.FAILED] * one.attempts
            if one.status == Status.DONE:
                wanted[-1] = Status.DONE
            assert [row.status for row in rows] == wanted, f"attempts of {one}"
            assert one.batch_id is None, f"{one} is still held"
            assert one.part_attempt is None or one.type != Type.COPY, f"a part of {one} is still expected"
    assert_invariants(cluster)


def assert_same(source: Path, target: Path) -> None:
    """Names, folders and bytes are alike."""
    wanted, found = shape(source), shape(target)
    other = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    assert not other, f"not alike: {other[:10]}"
