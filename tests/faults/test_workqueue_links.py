"""A server that bears less than we ask of it, and then more again: streams follow, and operators read why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.transfers import assert_books, assert_same, ended, hurry, rows, user
from tests.support.waiting import wait_until
from tests.support.webdav import PASSWORD, USER, Wsgidav
from tests.support.workqueue import WorkqueueClient

__all__ = ["user"]  # the fixture

pytestmark = pytest.mark.django_db(transaction=True)


def _files(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}").write_bytes(b"%04d" % number * (size // 4))


@pytest.mark.long
def test_a_server_that_refuses_more_connections(
    user: WorkqueueClient, cluster: Cluster, tmp_path: Path
) -> None:
    """Catches streams that stay as many while a server refuses them, or as few when it does no more; files
    that fail for it; a change that nobody is told of."""
    cluster.env |= {"GANTRY_LINK_LOOK_S": "0.5", "GANTRY_LINK_STREAMS": "16"}
    served, local = tmp_path / "served", tmp_path / "local"
    for folder in (served, local):
        folder.mkdir()
    _files(local / "little", 120, 400)
    _files(local / "more", 60, 1 << 20)
    server = Wsgidav(served, tmp_path / "log", tmp_path / "closed")
    server.start()
    try:
        with Proxy(("127.0.0.1", server.port)) as wire:
            cluster.node()
            here = user.local("here", local)
            place = {"protocol": "WEBDAV", "host": "127.0.0.1", "port": wire.port, "path": "/"}
            there = user.site("there", {**place, "options": {"scheme": "http"}})
            user.call("PUT", f"/sites/{there}/credentials", {"username": USER, "password": PASSWORD})

            def changes(job: int, words: str) -> list[dict[str, Any]] | None:
                hurry()
                assert user.status(job) != "FAILED", user.logs(job)
                links = user.call("GET", f"/sites/{there}/links")
                found = [each for link in links for each in link["changes"] if words in each["sentence"]]
                return found or None

            wire.most = 3
            first = user.post("copy", here, "/little", there, "/little", max_tries=100)
            fallen = wait_until(
                lambda: changes(first, "attempts failed: "), why="streams fall", see=lambda: rows(first)
            )
            assert all(each["to"] < each["from"] for each in fallen), fallen
            wire.most = None
            assert ended(user, first) == "DONE", user.logs(first)
            second = user.post("copy", here, "/more", there, "/more")
            risen = wait_until(
                lambda: changes(second, " MB/s after "), why="streams rise", see=lambda: rows(second)
            )
            assert any(each["to"] > each["from"] for each in risen), risen
            assert ended(user, second) == "DONE", user.logs(second)
        for name in ("little", "more"):
            assert_same(local / name, served / name)
        assert_books(cluster)
    finally:
        server.stop()
