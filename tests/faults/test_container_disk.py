"""Fault 18 for containers: the disk of their node is full, by a container's own files or by its output.

The disk is a tmpfs in the engine's mount namespace, in which the worker stands, too: both see one machine.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Process
from tests.support.containers import submit_container
from tests.support.engine import output, run, wait_final, wait_started
from tests.support.engines import Engine
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node
from workers.vocabulary.states import Reason, State

_NAME = "small"
#: Executes the rest with a /proc of its own: the engine's shows other process numbers.
_OWN_PROC = [
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    'mount -t proc proc /proc; exec "$@"',
    "sh",
]


class Disk:
    """A disk of ``size_mb`` MiB for one node and its engine."""

    def __init__(self, engine: Engine, cluster: Cluster, size_mb: int) -> None:
        self._folder = cluster.folder / _NAME
        self._folder.mkdir()
        enter = engine.enter("--mount")
        options = ["-o", f"size={size_mb}m,mode=0711"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", *options, "test", str(self._folder)], check=True)
        self._inside = Path(f"/proc/{engine.keeper}/root{self._folder}")
        self.node: Process = cluster.node(_NAME, settings=engine.env, under=[*enter, *_OWN_PROC])

    def free_mb(self) -> float:
        found = os.statvfs(self._inside)
        return found.f_bavail * found.f_frsize / 2**20

    def left_over(self) -> list[str]:
        return [str(path) for place in ("scratch", "containers") for path in (self._inside / place).glob("*")]


def _trouble() -> str:
    row = Node.objects.get(name=_NAME)
    return str(row.trouble or row.troubles.get("container", ""))


@pytest.mark.parametrize("by", ["files", "output"])
def test_a_container_fills_the_disk(
    mortal_engine: Engine, cluster: Cluster, account: Account, shared_folder: Path, by: str
) -> None:
    """Catches an end that cannot be recorded for want of a block, a bystander that suffers, a worker that
    dies or goes on taking work, space that is never given back."""
    ledger = open_ledger(shared_folder)
    disk = Disk(mortal_engine, cluster, 64)
    go, full = shared_folder / "go", shared_folder / "full"
    quiet = submit_container(
        account.tenant_id,
        ledger_command(ledger, "quiet", f"until test -e {full}; do sleep 0.1; done", 5),
        share=shared_folder,
    )
    wait_started(quiet)
    hold = f"until test -e {go}; do cat /dev/zero >> big 2>/dev/null; sleep 0.2; done"
    if by == "files":
        command = f"cat /dev/zero > big 2>/dev/null; code=$?; {hold}; exit $code"
    else:
        command = f"dd if=/dev/urandom bs=1M count=80 2>/dev/null; {hold}; exit 1"
    filler = submit_container(account.tenant_id, command, share=shared_folder, mem_mb=256)
    wait_until(lambda: disk.free_mb() < 1, why="the container fills the disk")
    wait_until(lambda: "MiB free in" in _trouble(), why="the node's row says what is wrong")
    waiting = submit_container(account.tenant_id, "echo here")
    wait_until(
        lambda: "MiB free in" in str(services.explain(account.tenant_id, waiting)["reasons"]),
        why="explain says why it waits",
    )
    full.touch()
    wait_final(quiet)
    assert disk.free_mb() < 1, "the bystander ended on a full disk, else this proves nothing"
    assert_truth(ledger, "quiet", quiet, 5)
    assert run(waiting).attempt == 0, "a node without space took work"
    go.touch()
    (failed,) = wait_final(filler)
    assert (failed.state, failed.reason, failed.exit_code) == (State.FAILED, Reason.EXIT_CODE, 1)
    assert ("the end of its output is missing" in failed.message) == (by == "output"), failed.message
    if by == "output":
        assert Attempt.objects.get(run_id=filler).log_truncated
        line = (
            b"\n[the end of the output is missing: the node could not store it (No space left on device)]\n"
        )
        assert output(filler).endswith(line)
    (after,) = wait_final(waiting)
    assert (after.state, after.attempt, output(waiting)) == (State.SUCCEEDED, 1, b"here\n")
    assert_once(ledger, {"quiet": quiet})
    assert disk.node.alive
    wait_until(lambda: not disk.left_over(), why="I4 nothing is left", see=disk.left_over)
    assert_invariants(cluster, engines=[mortal_engine])
