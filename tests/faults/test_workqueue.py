"""File operations between sites under faults: what was begun is finished, once, whole, by whoever lives.

What one storage or the mover alone must stand is in tests/conformance; here are real nodes, their database
and servers, and the books of the family.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Process, kill_under, pids_under
from tests.support.machine import alive, kill, signal_all
from tests.support.sshd import Sshd
from tests.support.transfers import (
    FREE,
    LARGE,
    MIB,
    SLOW,
    assert_books,
    assert_parts_gone,
    assert_same,
    attempts,
    content,
    element,
    ended,
    hurry,
    limits,
    log_of,
    movers,
    rows,
    sshd,
    user,
    wait_moving,
    wait_rest_done,
)
from tests.support.waiting import wait_until
from tests.support.workqueue import WorkqueueClient, grow
from workers.models import Run
from workers.vocabulary.crashpoints import TRANSFER_STEPS
from workqueue.models import Element
from workqueue.models.jobs import Status

__all__ = ["sshd", "user"]  # the fixtures

pytestmark = pytest.mark.django_db(transaction=True)

#: Where a worker may die: after a commit of what its mover reports, before that of the end.
REPORT_STEPS = ("runner.after_log_commit", "runner.before_finish_commit")
#: The other sides of both.
COMMIT_STEPS = ("runner.before_log_commit", "runner.after_finish_commit")
#: And everywhere else in the life of its run.
OTHER_STEPS = (
    "agent.before_claim",
    "agent.after_claim",
    "runner.before_prepare",
    "runner.after_prepare",
    "runner.before_start",
    "runner.after_start",
    "runner.before_started_commit",
    "runner.after_started_commit",
    "agent.before_adopt_commit",
    "agent.after_adopt_commit",
    "runner.after_exit",
    "runner.during_cleanup",
    "runner.after_cleanup",
)


def test_killed_in_the_middle(user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """The worker, then its mover, then both and the launcher, as a machine dies; the same job all the time.

    Catches elements that are lost or done again, attempts that are not counted, half a file under its name,
    what stays behind.
    """
    worker, home = cluster.node(), cluster.folder / "n1"
    source = tmp_path / "source"
    grow(source, levels=2)
    (source / "large").write_bytes(content(LARGE, b"large"))
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)
    limits(user, here, SLOW)
    job = user.post("copy", here, "/source", there, "/tree", max_tries=9)
    wait_moving(job, "large")
    wait_rest_done(job, "large")

    with sshd.frozen():  # so that it stays in the middle however long a start takes
        (mover,) = movers(home)
        worker.kill()
        worker = cluster.node()
        wait_until(lambda: Run.objects.filter(finished_at=None, lease_epoch=2).exists(), why="it is adopted")
        assert movers(home) == [mover], "the mover goes on without its worker"
        known = element(job, "large").transferred or 0
    wait_until(lambda: (element(job, "large").transferred or 0) > known, why="its reports are entered")
    assert set(attempts(job).values()) == {0, 1}

    kill(mover)
    large = wait_moving(job, "large", attempt=2)
    assert "Lost with run" in log_of(job, large.number, 1)

    with sshd.frozen():  # a mover that waits for the network, and nobody who could tell it to stop
        worker.kill()
        (mover,) = movers(home)
        kill(*(pid for pid in pids_under(home) if pid != mover))
        wait_until(lambda: not alive(mover), why="the mover ends with its shim")
    assert not (sshd.files / "tree" / "large").exists()
    limits(user, here, FREE)
    cluster.node()
    assert ended(user, job) == "DONE", user.logs(job)
    assert attempts(job) == {number: 3 if number == large.number else 1 for number in attempts(job)}
    assert "gone on at byte" in log_of(job, large.number, 3)
    assert_same(source, sshd.files / "tree")
    assert_books(cluster)


def test_the_mover_dies_at_each_step(user: WorkqueueClient, cluster: Cluster, tmp_path: Path) -> None:
    """Catches an element that fails, or is done twice, because its own earlier attempt was not heard of."""
    mark = cluster.folder / "once"
    cluster.node(GANTRY_CRASH_AT=",".join(TRANSFER_STEPS), GANTRY_CRASH_ONCE=str(mark))
    source = tmp_path / "source"
    grow(source, levels=2, files=200)  # so many that several processes share them: they die together
    (source / "large").write_bytes(content(MIB, b"large"))
    here = user.local("here", tmp_path)

    def survive(kind: str, *given: object) -> None:
        job = user.post(kind, here, *given, max_tries=20)  # type: ignore[arg-type]
        assert ended(user, job) == "DONE", user.logs(job)

    survive("copy", "/source", here, "/copy")
    assert_same(source, tmp_path / "copy")
    survive("rename", "/copy", None, "/renamed")
    assert_same(source, tmp_path / "renamed")
    survive("remove", "/renamed")
    survive("mkdir", "/made")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["made", "source"]
    missing = [name for name in TRANSFER_STEPS if not Path(f"{mark}.{name}").exists()]
    assert missing == [], "these were not come by"
    assert_books(cluster)


@pytest.mark.parametrize(
    "steps",
    [
        REPORT_STEPS,
        pytest.param(COMMIT_STEPS, marks=pytest.mark.long),
        pytest.param(OTHER_STEPS, marks=pytest.mark.long),
    ],
    ids=["report", "commit", "other"],
)
def test_the_worker_dies_at_each_step(
    user: WorkqueueClient, cluster: Cluster, tmp_path: Path, steps: tuple[str, ...]
) -> None:
    """Catches a report that is entered twice, or not at all, and work that is done again for it."""
    mark = cluster.folder / "once"
    crash = {"GANTRY_CRASH_AT": ",".join(steps), "GANTRY_CRASH_ONCE": str(mark)}
    source = tmp_path / "source"
    grow(source, levels=2)
    (source / "large").write_bytes(content(4 * MIB, b"large"))
    workers = [cluster.node(settings=crash if steps is REPORT_STEPS else None)]
    here = user.local("here", tmp_path)
    limits(user, here, {"max_bytes_per_s": 6 * MIB})  # so that its report comes in several pieces
    if steps is not REPORT_STEPS:
        workers[0].kill()  # a worker that is to die while it starts cannot be the first one
    job = user.post("copy", here, "/source", here, "/copy", max_tries=20)

    def over() -> bool:
        hurry()
        if not workers[-1].alive:
            workers.append(_next(cluster, crash))
        return user.status(job) in ("DONE", "FAILED") and Path(f"{mark}.{steps[-1]}").exists()

    wait_until(over, 240, 0.1, "it ends in spite of all", lambda: rows(job))
    assert user.status(job) == "DONE", user.logs(job)
    missing = [name for name in steps if not Path(f"{mark}.{name}").exists()]
    assert missing == [], "these were not come by"
    assert len(workers) > len(steps) - 1
    if steps is REPORT_STEPS:  # nobody but the worker died: there was never another mover
        assert set(attempts(job).values()) == {1}
    assert_same(source, tmp_path / "copy")
    if not workers[-1].alive:
        cluster.node(settings=crash)
    assert_books(cluster)


def _next(cluster: Cluster, settings: dict[str, str]) -> Process:
    """Another worker; movers stand still until it has found them, however long a start takes."""
    still = movers(cluster.folder / "n1")
    signal_all(still, signal.SIGSTOP)
    worker = cluster.node(settings=settings, wait=False)
    if still:
        wait_until(
            lambda: "agent.adopted" in worker.text() or not worker.alive, why="it adopts", see=worker.tail
        )
    signal_all(still, signal.SIGCONT)
    return worker


def _wait_done(user: WorkqueueClient, job: int, count: int) -> None:
    """Wait until so many elements are done, or the job is."""

    def done() -> bool:
        hurry()
        return (
            Element.objects.filter(job=job, status=Status.DONE).count() >= count or user.status(job) == "DONE"
        )

    wait_until(done, 120, 0.01, "it goes on", lambda: rows(job))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_at_random_moments(
    user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path
) -> None:
    """A tree there and back while workers, movers, launchers and the server die at moments nobody chose."""
    from tests.support.seeds import dice

    chance, home = dice("transfers killed"), cluster.folder / "n1"
    source, back = tmp_path / "source", tmp_path / "back"
    grow(source, files=3000)
    (source / "large").write_bytes(content(LARGE, b"large"))
    workers: list[Process] = [cluster.node()]
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)

    def survive(*given: object) -> None:
        job = user.post("copy", *given, max_tries=100)  # type: ignore[arg-type]
        for _ in range(20):
            before = Element.objects.filter(job=job, status=Status.DONE).count()
            _wait_done(user, job, before + chance.randrange(1, 300))
            what = chance.choice(["worker", "mover", "machine", "server"])
            if what == "server":
                sshd.stop()
                sshd.start()
            if what in ("worker", "machine"):
                workers[-1].kill()
            if what == "mover":
                with contextlib.suppress(ProcessLookupError):
                    kill(*movers(home))
            if what == "machine":
                kill_under(home)
            if what in ("worker", "machine"):
                workers.append(cluster.node())
        assert ended(user, job, 300) == "DONE", user.logs(job)

    survive(here, "/source", there, "/tree")
    survive(there, "/tree", here, "/back")
    assert_same(source, back)
    assert_parts_gone(tmp_path, sshd.files)
    assert_books(cluster)
