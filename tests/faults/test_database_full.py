"""Postgres' disk is full: it answers every question and takes nothing new."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from config.local.processes import program_environment
from config.local.servers import EmbeddedPostgres
from tests.support.cluster import ROOT, Cluster
from tests.support.waiting import limit, wait_until

#: Its data, moved onto a disk of $2 MiB that only it can see, and the command that follows.
_MOVED = """
mkdir "$1.disk" && mount -t tmpfs -o size="$2"m tmpfs "$1.disk" && cp -a "$1/." "$1.disk" &&
chmod 700 "$1.disk" && mount --bind "$1.disk" "$1" && shift 2 && exec "$@"
"""


@contextmanager
def on_a_small_disk(server: EmbeddedPostgres, more_mb: int) -> Iterator[Path]:
    """This server, which has been stopped, with so much space beyond its data; yields where that is."""
    data = server.working_folder
    size = sum(file.stat().st_blocks for file in data.rglob("*")) // 2048 + more_mb
    root = os.geteuid() == 0
    ids = ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--"]
    running = subprocess.Popen(
        [
            *("unshare", "--mount", *([] if root else ["--map-root-user"])),
            *("sh", "-c", _MOVED, "sh", str(data), str(size)),
            *([] if root else ids),
            *server.account.prefix,
            *server._prepare(),
        ],
        env=program_environment(),
        cwd="/",
        start_new_session=True,
    )
    try:
        wait_until(lambda: server._answers() or running.poll() is not None, why="it answers")
        yield Path(f"/proc/{running.pid}/root{data}")
    finally:
        running.kill()
        running.wait(limit(60))


@pytest.mark.long
def test_a_full_database_takes_nothing_new_and_says_so(cluster: Cluster) -> None:
    """Catches "ready" where nearly every change is refused: whoever balances goes on sending them here."""
    server = EmbeddedPostgres(cluster.folder / "pg")
    server.start()
    own = {"DATABASE_URL": server.url}
    for words in (["migrate", "--noinput"], ["bootstrap"]):
        given = {**cluster.base_env, **own, "GANTRY_BOOTSTRAP_TOKEN": "gnt_" + "t" * 43}
        subprocess.run(
            [sys.executable, "manage.py", *words], cwd=ROOT, env=given, check=True, stdout=subprocess.DEVNULL
        )
    server.stop()
    with on_a_small_disk(server, 32) as disk:
        api = cluster.api(DATABASE_URL=server.url)

        def ready() -> httpx.Response:
            return httpx.get(f"{api.url}/readyz", timeout=limit(30))

        def submitted() -> int:
            task = {"taskName": "big", "commands": f"true # {os.urandom(30_000).hex()}"}
            headers = {"X-Token": "gnt_" + "t" * 43}
            return httpx.post(
                f"{api.url}/v1/tasks", json=task, headers=headers, timeout=limit(30)
            ).status_code

        assert (ready().status_code, submitted()) == (200, 200)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        wait_until(lambda: submitted() == 503, why="nothing new is taken")
        told = wait_until(
            lambda: (found := ready()).status_code == 503 and found, why="it says so", see=ready
        )
        assert told.json()["status"] == "not ready"
        assert told.json()["database"] == "full: it has no space left on its disk and takes nothing new"
        filler.unlink()
        wait_until(lambda: ready().status_code == 200, why="it is ready again")
        assert submitted() == 200
