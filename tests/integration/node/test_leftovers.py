"""A command leaves a folder of any depth, and something that no node can remove: everything else goes on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.disk import Disk, node_on_small_disk
from tests.support.engine import output, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.waiting import wait_until
from workers.api.nodes import shapes
from workers.models import Node
from workers.vocabulary.states import State

pytestmark = pytest.mark.django_db(transaction=True)

#: 1,600 folders in one another, and two beside them, on one of which a disk will be mounted.
_SCRIPT = """
top=$PWD; mkdir mounted ordinary
steps=$(printf 'd/%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
for round in $(seq 80); do mkdir -p $steps && cd $steps; done
touch $top/ready
until test -e $top/ordinary/go; do sleep 0.1; done
"""


def _mount(disk: Disk, folder: Path) -> None:
    """A disk on a folder, where that node sees it."""
    enter = ["nsenter", f"--target={disk.keeper}", "--mount"]
    enter += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "none", str(folder)], check=True)


def _trouble() -> str:
    return shapes.trouble(Node.objects.get(name="n1"))


def test_what_cannot_be_removed_stops_nothing(cluster: Cluster, account: Account) -> None:
    """Catches: a run that is not over for what it has left, a sweep that ends at the first one, a worker that
    dies of it at its start, an operator who is not told."""
    disk = node_on_small_disk(cluster, "n1", 64)
    run_id = submit(account.tenant_id, _SCRIPT)
    wait_started(run_id)
    scratch = disk.inside / "scratch" / f"{run_id}-1"
    wait_until((scratch / "ready").exists, why="its folders are made")
    _mount(disk, cluster.folder / "n1" / "scratch" / scratch.name / "mounted")
    (scratch / "ordinary" / "go").touch()
    (ended,) = wait_final(run_id)
    assert (ended.state, ended.reason) == (State.SUCCEEDED, "")
    wait_until(_trouble, why="the node says so", see=disk.node.tail)
    assert _trouble() == (
        f"left of run {run_id} (process, attempt 1): {cluster.folder}/n1/scratch/{run_id}-1/mounted cannot be"
        " removed: something is mounted there, or the kernel uses it: unmount it (findmnt, umount)"
    )
    assert [path.name for path in scratch.iterdir()] == ["mounted"], "all that is around it has gone"
    assert "runner_failed" not in disk.node.text()

    disk.node.kill()
    orphan = scratch.with_name(f"{run_id + 1}-1")
    orphan.mkdir()
    (orphan / "file").touch()
    disk.next_worker(GANTRY_ORPHAN_GRACE_S="0")
    wait_until(lambda: not orphan.exists(), why="other orphans are swept", see=disk.node.tail)
    wait_until(_trouble, why="the next worker says so, too")
    (ended,) = wait_final(submit(account.tenant_id, "echo here"))
    assert (ended.state, output(ended.pk)) == (State.SUCCEEDED, b"here\n")
    node = Node.objects.get(name="n1")
    assert (node.trouble, list(node.troubles)) == ("", ["leftovers"]), "it takes work"
    assert "thread_failed" not in disk.node.text()
