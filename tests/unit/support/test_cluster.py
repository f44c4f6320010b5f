"""The tests' own nodes and API: what the other tests rely on when they clear up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cluster import Cluster, Process
from tests.support.machine import alive, with_children
from tests.support.waiting import limit, wait_until

#: Starts a child that outlives it, in its own group.
PARENT = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"


def _started(folder: Path, *command: str) -> Process:
    return Process("test", subprocess.Popen(command, start_new_session=True), folder / "log")


def test_who_has_the_number_of_a_dead_process_is_spared(tmp_path: Path) -> None:
    """Catches a test that kills what another one runs: numbers of processes come again within a minute."""
    dead, stranger = _started(tmp_path, "true"), _started(tmp_path, "sleep", "600")
    dead.popen.wait(limit(60))
    try:
        dead.popen.pid = stranger.pid  # as if it had been given the number since
        Cluster(tmp_path, {}, processes=[dead]).stop()
        assert stranger.alive
    finally:
        stranger.kill()


def test_children_of_a_killed_process_do_not_stay(tmp_path: Path) -> None:
    """Catches API servers that outlive their test."""
    parent = _started(tmp_path, sys.executable, "-c", PARENT)
    wait_until(lambda: len(with_children(parent.pid)) == 2, why="its child is there")
    _, child = with_children(parent.pid)
    parent.kill()
    assert alive(child)
    Cluster(tmp_path, {}, processes=[parent]).stop()
    wait_until(lambda: not alive(child), why="its child is gone")
