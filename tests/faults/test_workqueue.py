"""File operations between sites under faults: what was begun is finished, once, whole, by whoever lives.

What one storage or the mover alone must stand is in tests/conformance; here are real nodes, their database
and servers, and the books of the family.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Process, kill_under, test_database_url
from tests.support.fixtures import Account
from tests.support.machine import alive, kill, signal_all
from tests.support.outages import patiently, postgres_down
from tests.support.proxy import Proxy, upstream_of, url_through
from tests.support.sshd import Sshd
from tests.support.transfers import (
    MIB,
    QUICK,
    assert_books,
    assert_parts_gone,
    assert_same,
    attempts,
    content,
    element,
    ended,
    hurry,
    log_of,
    movers,
    rows,
    wait_moving,
    wait_rest_done,
)
from tests.support.waiting import wait_until
from tests.support.workqueue import ROOT, WorkqueueClient, grow
from workers.models import Run
from workers.vocabulary.crashpoints import TRANSFER_STEPS
from workqueue.models import Batch, Element, ElementAttempt
from workqueue.models.jobs import Status

pytestmark = pytest.mark.django_db(transaction=True)

#: Bytes/s of a site whose large files are to be caught in the middle. A batch has a quarter of it.
SLOW = {"max_bytes_per_s": 12 * MIB}
FREE = {"max_bytes_per_s": None}
LARGE = 48 * MIB
#: Where a worker may die while it has a batch, around each commit of what its mover reports and of its end.
REPORT_STEPS = (
    "runner.before_log_commit",
    "runner.after_log_commit",
    "runner.before_finish_commit",
    "runner.after_finish_commit",
)
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

    worker.kill()
    kill_under(home)
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
    "steps", [REPORT_STEPS, pytest.param(OTHER_STEPS, marks=pytest.mark.long)], ids=["report", "other"]
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
    if steps is OTHER_STEPS:
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


def test_postgres_away(user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """A batch ends while the database is away; another job is cancelled meanwhile, which cannot be promised.

    Catches a report that is lost or entered twice, a cancel that is answered and forgotten.
    """
    cluster.node()
    home = cluster.folder / "n1"
    source = tmp_path / "source"
    grow(source, levels=1, files=100)
    (source / "large").write_bytes(content(16 * MIB, b"large"))
    (tmp_path / "endless").write_bytes(content(LARGE, b"endless"))
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)
    slow = user.local("slow", tmp_path)
    limits(user, slow, {"max_bytes_per_s": MIB})
    limits(user, here, SLOW)
    endless = user.post("copy", slow, "/endless", here, "/out/endless")
    wait_moving(endless, "endless")
    job = user.post("copy", here, "/source", there, "/tree")
    wait_moving(job, "large")
    both = movers(home)
    assert len(both) == 2
    with postgres_down():
        refused = user.http.post(f"{ROOT}/jobs/{endless}/cancel")
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["Retry-After"]) > 0
        wait_until(lambda: len(movers(home)) == 1, why="one ends while the database is away")
        assert_same(source, sshd.files / "tree")
    wait_until(patiently(lambda: user.http.get("/healthz").is_success), why="the API is back")
    wait_until(lambda: user.http.post(f"{ROOT}/jobs/{endless}/cancel").is_success, why="the cancel is taken")
    assert ended(user, job) == "DONE", user.logs(job)
    assert set(attempts(job).values()) == {1}
    assert ended(user, endless) == "FAILED"
    assert "ancelled" in user.logs(endless)
    assert set(attempts(endless).values()) == {1}
    assert_parts_gone(tmp_path / "out", sshd.files)
    assert not (tmp_path / "out" / "endless").exists()
    assert_books(cluster)


def test_a_node_that_is_cut_off(user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """Its guard kills the movers before anything is handed out again; one of its jobs is cancelled meanwhile.

    Catches two movers of one element, and a cancel that waits for a node that will not answer.
    """
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "14"
    for name in ("kept", "given up"):
        (tmp_path / name).write_bytes(content(LARGE, name.encode()))
    with Proxy(upstream_of(test_database_url())) as wire:
        by_way = {"DATABASE_URL": url_through(test_database_url(), wire), "GANTRY_GUARD_MARGIN_S": "7"}
        victim = cluster.node("n1", settings=by_way)
        here, there = user.local("here", tmp_path), user.sftp("there", sshd)
        limits(user, here, {"max_bytes_per_s": 8 * MIB})
        kept = user.post("copy", here, "/kept", there, "/kept", max_tries=3)
        given_up = user.post("copy", here, "/given up", there, "/given up", max_tries=3)
        wait_moving(kept, "kept")
        wait_moving(given_up, "given up")
        first = movers(cluster.folder / "n1")
        assert len(first) == 2
        wire.cut()
        limits(user, here, FREE)
        cluster.node("n2", GANTRY_GUARD_MARGIN_S="1", GANTRY_WAIT_BROKER="0")
        assert user.call("POST", f"/jobs/{given_up}/cancel")["cancelled"] is True

        def handed_out() -> bool:
            again = Batch.objects.filter(job=kept, phase__gt=0).count() > 1
            assert not (again and any(map(alive, first))), "handed out while its first mover lives"
            return again

        wait_until(handed_out, 90, 0.02, "its elements come back", lambda: rows(kept))
        assert ended(user, kept) == "DONE", user.logs(kept)
        assert ended(user, given_up) == "FAILED"
        wire.mend()
        wait_until(lambda: victim.text().count("run.left") == 2, why="the node lets go", see=victim.tail)
        assert (attempts(kept)[1], attempts(given_up)[1]) == (2, 1)
        assert "gone on at byte" in log_of(kept, 1, 2)
        assert "ancelled" in log_of(given_up, 1, 1)
        assert (sshd.files / "kept").read_bytes() == content(LARGE, b"kept")
        assert_parts_gone(sshd.files)
        assert sorted(item.name for item in sshd.files.iterdir()) == ["kept"]
        assert_books(cluster)


def test_a_server_that_dies(user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """Twice in the middle of two files, one of which is another one meanwhile; a third has shrunk since it
    was listed. Catches a mixture, a wrong size, a copy that begins anew for no reason."""
    cluster.node()
    source = tmp_path / "source"
    source.mkdir()
    for name in ("same", "other"):
        (source / name).write_bytes(content(8 * MIB, name.encode()))
    (tmp_path / "ten").write_bytes(b"0123456789")
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)
    limits(user, here, SLOW)
    job = user.post("copy", here, "/source", there, "/tree", max_tries=99)
    wait_moving(job, "same")
    wait_moving(job, "other")
    sshd.stop()
    (source / "other").write_bytes(content(8 * MIB, b"another"))
    shrunk = user.post("copy", here, "/ten", there, "/ten", max_tries=99)
    for number in (job, shrunk):
        wait_until(
            lambda: ElementAttempt.objects.filter(job_id=number, number__gt=0).exists(),  # noqa: B023
            why="an attempt has failed",
            see=lambda: rows(number),  # noqa: B023
        )
    assert Element.objects.get(job=shrunk, number=1).size == 10
    (tmp_path / "ten").write_bytes(b"four")
    sshd.start()
    wait_moving(job, "other", element(job, "other").attempts + 1)
    sshd.stop()
    limits(user, here, FREE)
    sshd.start()
    assert ended(user, job) == "DONE", user.logs(job)
    assert ended(user, shrunk) == "DONE", user.logs(shrunk)
    same, other = element(job, "same"), element(job, "other")
    assert "gone on at byte" in log_of(job, same.number, same.attempts)
    logs = [log_of(job, other.number, attempt + 1) for attempt in range(other.attempts)]
    assert any("begun anew" in log for log in logs), logs
    assert_same(source, sshd.files / "tree")
    assert (sshd.files / "ten").read_bytes() == b"four"
    assert user.elements(shrunk)[1]["size"] == 4
    _trees_of_a_kind(user, here, there, sshd, tmp_path)
    assert_books(cluster)


def _trees_of_a_kind(user: WorkqueueClient, here: int, there: int, sshd: Sshd, tmp_path: Path) -> None:
    """Public cases: nothing but empty folders; links to the parent, to a folder, to a file, to nothing."""
    for name in ("a/b/c", "a/d"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    user.done("copy", here, "/empty", there, "/empty")
    assert_same(tmp_path / "empty", sshd.files / "empty")

    links = tmp_path / "links"
    (links / "folder").mkdir(parents=True)
    (links / "folder" / "file").write_bytes(b"content")
    for name, where in (("up", ".."), ("here", "."), ("sub", "folder"), ("file", "folder/file")):
        (links / name).symlink_to(where)
    job = user.done("copy", here, "/links", there, "/links")
    copied = sshd.files / "links"
    assert sorted(item.name for item in copied.iterdir()) == ["file", "folder"]
    assert (copied / "file").read_bytes() == (copied / "folder" / "file").read_bytes() == b"content"
    assert not (copied / "file").is_symlink()
    log = log_of(job, 0, 1)
    assert all(f"/links/{name}" in log for name in ("up", "here", "sub")), log


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
