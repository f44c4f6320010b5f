"""The guard stops what a silent worker left running.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.launcher.launching import Node, node
from workers.launcher import control
from workers.launcher.guard import Guard
from workers.runtimes.launched.client import LauncherError

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


def test_a_renewal_in_time_keeps_the_guard_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(control, "boottime", lambda: now)
    guard = Guard(str(tmp_path), control.boot_id())
    for _ in range(4):
        guard.renew(6)
        now += 5.9
        assert guard.overdue() is None
        assert guard.age() == pytest.approx(5.9)
    now += 0.2
    assert "limit is 6.0 s" in str(guard.overdue())


def test_the_guard_lets_runs_live_that_are_renewed(node: Node) -> None:
    """Another one, whose worker is silent, is stopped meanwhile: it did look."""
    other = Node(node.mode)
    try:
        name, doomed = node.start("sleep 600"), other.start("sleep 600")
        node.client.renew(600)
        other.client.renew(0.5)
        assert other.end(doomed).killed == "guard"
        assert node.state(name).state == control.RUNNING
        age = node.client.ensure().renewed_age
        assert age is not None
        assert age > 0.4
    finally:
        other.close()


def test_the_guard_survives_its_launcher(node: Node) -> None:
    name = node.start("sleep 600")
    node.client.renew(1)
    node.kill_launcher()
    node.another_client().ensure()
    assert node.end(name).killed == "guard"


def test_a_renewal_of_another_start_of_the_machine_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "renewed").write_text("another-boot 1.0 0.1\n")
    assert Guard(str(tmp_path), control.boot_id()).overdue() is None
    (tmp_path / "renewed").write_text(f"{control.boot_id()} 1.0 0.1\n")
    assert "limit is 0.1 s" in str(Guard(str(tmp_path), control.boot_id()).overdue())
