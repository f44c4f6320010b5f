"""Removing a run's folder leaves alone what the folders of other runs lie in."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from workers.runtimes.folders import remove_tree


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the commands of all runs pass through."""
    found = tmp_path / "scratch"
    found.mkdir()
    found.chmod(0o711)
    return found


def test_what_is_gone_already_closes_nothing(root: Path) -> None:
    """Catches a second cleanup, after a crash in the first, that locks later commands out of the node."""
    remove_tree(root / "1-1")
    assert _mode(root) == 0o711


def test_what_a_run_has_locked_goes_and_the_rest_stays(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    other.chmod(0o644)
    run = root / "1-1"
    (run / "deep" / "er").mkdir(parents=True)
    (run / "deep" / "file").write_text("x")
    (run / "deep" / "link").symlink_to(other)
    for folder in (run / "deep" / "er", run / "deep", run):
        folder.chmod(0o500)
    remove_tree(run)
    assert not run.exists()
    assert (_mode(root), _mode(other), other.read_text()) == (0o711, 0o644, "mine")
