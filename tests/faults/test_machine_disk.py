"""Fault 18: the disk of a node is full, by a run's own files or by its output.

The run that fills it gets its own failure. The worker survives, says what is wrong in the node's row and in
explain, takes no work, and goes on when space is freed. Runs that write nothing notice nothing: their ends
are recorded on a disk that has not one block left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.disk import Disk, node_on_small_disk
from tests.support.engine import output, run, submit, wait_final, wait_started
from tests.support.fixtures import Account
from tests.support.invariants import assert_invariants, assert_once, assert_truth, ledger_command, open_ledger
from tests.support.machine import wait_for_file
from tests.support.waiting import wait_until
from workers import services
from workers.models import Attempt, Node
from workers.vocabulary.states import Reason, State

HERE = {"rack_id": ["small"]}
#: Fills the working folder to the last byte.
FILL = "head -c 1G /dev/zero > big 2>/dev/null"
#: Takes every byte that becomes free meanwhile.
KEEP_FULL = "cat /dev/zero >> big 2>/dev/null; sleep 0.2"


def _until(path: Path) -> str:
    """Writes nothing, and ends when the file is there."""
    return f"until test -e {path}; do sleep 0.1; done"


def _trouble() -> str:
    return Node.objects.get(name="small").trouble


def _told(account: Account, run_id: int) -> list[dict[str, Any]]:
    """What explain says of the node's trouble."""
    found: Any = services.explain(account.tenant_id, run_id)["reasons"]
    return [reason for reason in found if reason["code"] == "trouble"]


def _assert_full_and_said_so(account: Account, disk: Disk) -> int:
    """The disk is full, the node says so and takes no work; returns a run that waits because of it."""
    wait_until(lambda: disk.free_mb() < 1, why="the run fills the disk", see=disk.free_mb)
    wait_until(lambda: "MiB free in" in _trouble(), why="the node's row says what is wrong")
    waiting = submit(account.tenant_id, "echo here", constraints=HERE)
    told = wait_until(lambda: _told(account, waiting), why="explain says why it waits")
    assert "MiB free in" in told[0]["message"]
    assert told[0]["remedy"]
    return waiting


def _assert_recovered(cluster: Cluster, disk: Disk, waiting: int) -> None:
    """Space is free again: the node takes work, what waited ran, nothing is left."""
    wait_until(lambda: disk.free_mb() > 40, why="the space is given back", see=disk.free_mb)
    wait_until(lambda: not _trouble(), why="the node has nothing to complain of any more")
    (ended,) = wait_final(waiting)
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)
    assert disk.node.alive
    wait_until(lambda: not disk.left_over(), why="I4 nothing is left", see=disk.left_over)
    assert_invariants(cluster)


@pytest.mark.account
def test_a_run_fills_the_scratch_disk(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches an end that cannot be recorded for want of a block (run and space are then lost for good), a
    guard that kills bystanders since it cannot note a renewal, a worker that dies or goes on taking work."""
    ledger = open_ledger(shared_folder)
    disk = node_on_small_disk(cluster, "small", 64, GANTRY_NODE_ATTRIBUTES="rack_id=small")
    cluster.node("other", attributes="rack_id=other")
    go, full, later = (shared_folder / name for name in ("go", "full", "later"))
    quiet = submit(account.tenant_id, ledger_command(ledger, "quiet", _until(full), 5), constraints=HERE)
    steady = submit(account.tenant_id, ledger_command(ledger, "steady", _until(later), 6), constraints=HERE)
    for run_id in (quiet, steady):
        wait_started(run_id)
    filler = submit(
        account.tenant_id,
        f"{FILL}; code=$?; until test -e {go}; do {KEEP_FULL}; done; exit $code",
        mem_mb=256,  # a tmpfs's pages are its writer's memory
        constraints=HERE,
    )
    waiting = _assert_full_and_said_so(account, disk)
    elsewhere = submit(account.tenant_id, "echo fine", constraints={"rack_id": ["other"]})
    (fine,) = wait_final(elsewhere)
    assert fine.state == State.SUCCEEDED
    for path, run_id in ((full, quiet), (later, steady)):
        path.touch()
        wait_final(run_id)
    assert disk.free_mb() < 1, "the bystanders ended on a full disk, else this proves nothing"
    for name, run_id, code in (("quiet", quiet, 5), ("steady", steady, 6)):
        assert_truth(ledger, name, run_id, code)
    assert run(waiting).attempt == 0, "a node without space took work"
    go.touch()
    (ended,) = wait_final(filler)
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.EXIT_CODE, 1)
    assert_once(ledger, {"quiet": quiet, "steady": steady})
    _assert_recovered(cluster, disk, waiting)


def test_a_run_fills_the_disk_with_its_output(
    cluster: Cluster, account: Account, shared_folder: Path
) -> None:
    """Catches the same where the log spool fills it: output is capped, but a disk can be smaller. What finds
    no space does not stop who writes it, and the log says where it is missing."""
    ledger = open_ledger(shared_folder)
    disk = node_on_small_disk(cluster, "small", 56, GANTRY_NODE_ATTRIBUTES="rack_id=small")
    go, full, done = (shared_folder / name for name in ("go", "full", "done"))
    steady = submit(account.tenant_id, ledger_command(ledger, "steady", _until(full), 6), constraints=HERE)
    wait_started(steady)
    fill = "dd if=/dev/zero bs=20M count=4 2>/dev/null"
    command = f"{fill} && touch {done}; until test -e {go}; do sleep 0.2; done; exit 3"
    filler = submit(account.tenant_id, command, mem_mb=256, constraints=HERE)
    waiting = _assert_full_and_said_so(account, disk)
    wait_for_file(done)
    full.touch()
    wait_final(steady)
    assert_truth(ledger, "steady", steady, 6)
    go.touch()
    (ended,) = wait_final(filler)
    assert (ended.state, ended.reason, ended.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    attempt = Attempt.objects.get(run_id=filler)
    assert 40 * 2**20 < attempt.log_bytes < 60 * 2**20
    assert attempt.log_truncated
    assert output(filler).endswith(b"are missing here: there was no space for them]\n")
    assert_once(ledger, {"steady": steady})
    _assert_recovered(cluster, disk, waiting)


def test_a_run_that_filled_the_disk_is_cancelled(cluster: Cluster, account: Account) -> None:
    """Catches a cancel that needs space to be written down: then nobody can stop what fills the disk."""
    disk = node_on_small_disk(cluster, "small", 64, GANTRY_NODE_ATTRIBUTES="rack_id=small")
    filler = submit(
        account.tenant_id,
        f"trap '' TERM; {FILL}; while :; do {KEEP_FULL}; done",
        mem_mb=256,
        constraints=HERE,
        grace_s=1,
    )
    waiting = _assert_full_and_said_so(account, disk)
    assert services.cancel(account.tenant_id, filler).accepted
    (ended,) = wait_final(filler)
    assert (ended.state, ended.message) == (State.CANCELLED, "Command was killed by request")
    assert (ended.exit_code, ended.attempt) == (137, 1)
    _assert_recovered(cluster, disk, waiting)


def test_a_worker_starts_on_a_full_disk(cluster: Cluster, account: Account, shared_folder: Path) -> None:
    """Catches a worker that needs space for its start: runs would then end with nobody to record it, and the
    space of those that ended could not be given back."""
    ledger = open_ledger(shared_folder)
    cluster.env["GANTRY_NODE_LOST_AFTER_S"] = "120"  # else the guard acts while there is no worker
    disk = node_on_small_disk(cluster, "small", 64, GANTRY_NODE_ATTRIBUTES="rack_id=small")
    go, full = shared_folder / "go", shared_folder / "full"
    steady = submit(account.tenant_id, ledger_command(ledger, "steady", _until(full), 6), constraints=HERE)
    wait_started(steady)
    command = f"{FILL}; code=$?; until test -e {go}; do {KEEP_FULL}; done; exit $code"
    filler = submit(account.tenant_id, command, mem_mb=256, constraints=HERE)
    waiting = _assert_full_and_said_so(account, disk)
    disk.node.kill()
    full.touch()
    wait_until(lambda: "end steady" in ledger.read_text(), why="a run ends while there is no worker")
    disk.next_worker(GANTRY_NODE_ATTRIBUTES="rack_id=small")
    wait_final(steady)
    assert disk.free_mb() < 1, "the worker started on a full disk, else this proves nothing"
    assert_truth(ledger, "steady", steady, 6)
    go.touch()
    (ended,) = wait_final(filler)
    assert (ended.state, ended.exit_code, ended.attempt) == (State.FAILED, 1, 1)
    assert_once(ledger, {"steady": steady})
    _assert_recovered(cluster, disk, waiting)
