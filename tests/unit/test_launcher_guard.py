"""The guard stops what a silent worker left running.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.unit.launching import Node, node
from workers.launcher import control
from workers.launcher.guard import Guard
from workers.runtimes.launcher_client import LauncherError

pytestmark = pytest.mark.invariant

__all__ = ["node"]  # the fixture


def test_the_guard_stops_fenced_runs_only(node: Node) -> None:
    node.client.renew(300)
    fenced, free = node.request("sleep 600"), node.request("sleep 600", fence=False)
    node.client.start(fenced)
    node.client.start(free)
    node.client.renew(0.5)
    assert node.end(fenced.name).killed == "guard"
    assert node.state(free.name).state == control.RUNNING
    with pytest.raises(LauncherError, match="renewal") as refused:
        node.client.start(node.request("true"))
    assert refused.value.code == "fenced"
    node.client.renew(300)
    assert node.run("true")[0].code == 0


def test_a_renewal_in_time_keeps_the_guard_quiet(node: Node) -> None:
    name = node.start("sleep 60")
    for _ in range(4):
        node.client.renew(6)
        time.sleep(2)
    assert node.state(name).state == control.RUNNING
    age = node.client.ensure().renewed_age
    assert age is not None
    assert 1.9 < age < 6


def test_the_guard_survives_its_launcher(node: Node) -> None:
    name = node.start("sleep 60")
    node.client.renew(1)
    node.kill_launcher()
    node.another_client().ensure()
    assert node.end(name).killed == "guard"


def test_a_renewal_of_another_start_of_the_machine_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "renewed").write_text("another-boot 1.0 0.1\n")
    assert Guard(str(tmp_path), control.boot_id()).overdue() is None
    (tmp_path / "renewed").write_text(f"{control.boot_id()} 1.0 0.1\n")
    assert "limit is 0.1 s" in str(Guard(str(tmp_path), control.boot_id()).overdue())
