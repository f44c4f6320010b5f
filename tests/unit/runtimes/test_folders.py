"""Removing a run's folder leaves alone what the folders of other runs lie in."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
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


@pytest.fixture
def as_an_ordinary_user() -> Iterator[Path]:
    """A folder of a user whom rights stop, which is what this process is for the moment."""
    folder = Path(tempfile.mkdtemp(prefix="gf", dir="/tmp"))
    uid = os.geteuid()
    if uid == 0:
        os.chown(folder, 65_534, 65_534)
        os.seteuid(65_534)
    yield folder
    os.seteuid(uid)
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400, 0o500, 0o600])
def test_folders_that_a_command_closed_go_too(as_an_ordinary_user: Path, mode: int) -> None:
    """Catches scratch folders that stay for ever; what stops a removal differs from Python to Python."""
    run = as_an_ordinary_user / "1-1"
    (run / "deep" / "er").mkdir(parents=True)
    for folder in (run, run / "deep", run / "deep" / "er"):
        for name in ("a", "b"):
            (folder / name).write_text("x")
    for folder in (run / "deep" / "er", run / "deep", run):
        folder.chmod(mode)
    remove_tree(run)
    assert list(as_an_ordinary_user.iterdir()) == []
