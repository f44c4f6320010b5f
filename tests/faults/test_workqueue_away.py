"""Transfers while somebody is away: the database, a node, a server that files go to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster import Cluster, test_database_url
from tests.support.machine import alive
from tests.support.outages import patiently, postgres_down, redis_down
from tests.support.proxy import Proxy, upstream_of, url_through
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
    limits,
    log_of,
    movers,
    rows,
    sshd,
    user,
    wait_moving,
)
from tests.support.waiting import wait_until
from tests.support.workqueue import ROOT, WorkqueueClient, grow
from workqueue.models import Batch, Element, ElementAttempt

__all__ = ["sshd", "user"]  # the fixtures

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_redis_away(user: WorkqueueClient, cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """One job is in the middle, another is registered meanwhile: both end, a third once it is back.

    Catches a transfer whose only trace was a message, an attempt more than there were, a report that is lost.
    """
    cluster.node()
    source = tmp_path / "source"
    grow(source, levels=1, files=30)
    (source / "large").write_bytes(content(8 * MIB, b"large"))
    here, there = user.local("here", tmp_path), user.sftp("there", sshd)
    limits(user, here, SLOW)
    first = user.post("copy", here, "/source", there, "/first")
    wait_moving(first, "large")
    with redis_down():
        second = user.post("copy", there, "/first/plain", here, "/second")
        for job in (first, second):
            assert ended(user, job) == "DONE", user.logs(job)
    third = user.post("remove", there, "/first")
    assert ended(user, third) == "DONE", user.logs(third)
    assert all(set(attempts(job).values()) == {1} for job in (first, second, third))
    assert (tmp_path / "second").read_bytes() == (source / "plain").read_bytes()
    assert list(sshd.files.iterdir()) == []
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
