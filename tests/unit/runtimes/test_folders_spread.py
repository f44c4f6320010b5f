"""Folders of runs are laid out all over an ext4 without a journal, and left alone elsewhere.

On real disks: small images, mounted where only the process that looks at them sees them. That needs root and
a machine with loop devices; without them there is only what every machine can show.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import limit
from workers.runtimes.folders import spread

#: One at a time: they take loop devices.
pytestmark = pytest.mark.xdist_group("loop devices")

PROJECT = Path(__file__).resolve().parents[3]
_TOOLS = os.environ | {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}

#: A disk of 8 groups with 256 inodes each. $1: a folder, $2: a feature of the file system; the rest is run.
MOUNT = """set -e
folder=$1 feature=$2; shift 2
truncate -s 64M "$folder/image"
mkfs.ext4 -q -b 1024 -N 2048 -O "^flex_bg,$feature" "$folder/image"
mkdir "$folder/disk"
mount -o loop "$folder/image" "$folder/disk"
exec "$@" "$folder/disk/node"
"""
#: Of each place: what lsattr says of it, and how many groups of the disk 40 runs' folders are in.
LOOK = """
import subprocess
import sys
from pathlib import Path
import django
django.setup()
from workers.runtimes.container.runtime import ContainerRuntime
from workers.runtimes.engine.client import Address, Engine
from workers.runtimes.exec.runtime import ExecRuntime
from workers.runtimes.process.runtime import ProcessRuntime
node, engine = Path(sys.argv[1]), Engine(Address.parse("unix:///nowhere"))
for _ in range(2):  # a worker's start, and its next one
    ProcessRuntime(node)
    ContainerRuntime(node, engine, "i", "n", b"key")
    ExecRuntime(node, engine, "i", "n")
for place in ("scratch", "launcher/runs", "containers", "execs"):
    folders = [node / place / f"{number}-1" for number in range(1, 41)]
    for folder in folders:
        folder.mkdir()
    flags = subprocess.run(["lsattr", "-d", node / place], capture_output=True, text=True, check=True).stdout
    print("T" in flags.split()[0], len({(folder.stat().st_ino - 1) // 256 for folder in folders}))
"""


def _has_loop_devices() -> bool:
    if os.geteuid() != 0:
        return False
    return subprocess.run(["losetup", "--find"], capture_output=True, env=_TOOLS, check=False).returncode == 0


@pytest.fixture
def spot() -> Iterator[Path]:
    """A folder that every user may pass through, as a node's folder has to be."""
    folder = Path(tempfile.mkdtemp(prefix="gsp-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def _look(spot: Path, feature: str) -> list[tuple[bool, int]]:
    """Of scratch and of each kind of control folders: are they marked, over how many groups are they?"""
    look = subprocess.run(
        ["unshare", "--mount", "sh", "-c", MOUNT, "sh", spot, feature, sys.executable, "-c", LOOK],
        capture_output=True, text=True, cwd=PROJECT, env=_TOOLS, timeout=limit(180), check=False,
    )  # fmt: skip
    assert look.returncode == 0, look.stdout + look.stderr
    found = [line.split() for line in look.stdout.splitlines()]
    assert len(found) == 4
    return [(flag == "True", int(groups)) for flag, groups in found]


if _has_loop_devices():

    def test_without_a_journal_the_folders_of_runs_are_everywhere(spot: Path) -> None:
        """Catches runs that share one corner of the disk: ext4 then looks at all that were deleted lately."""
        found = _look(spot, "^has_journal")
        assert all(flag for flag, _ in found), found
        # How many is ext4's business, which draws lots among the groups that have more room than the average.
        # In one of them all would be that are not spread.
        assert all(groups >= 2 for _, groups in found), found

    def test_with_a_journal_nothing_is_changed(spot: Path) -> None:
        """Catches commits that become larger for nothing: there is no such search with a journal."""
        found = _look(spot, "has_journal")
        assert not any(flag for flag, _ in found), found


def test_where_it_is_not_possible_nothing_happens(tmp_path: Path) -> None:
    """Catches a worker that does not start for want of a faster disk."""
    spread(tmp_path / "missing")
    spread(Path("/proc/self"))
    spread(Path("/proc/self/cmdline"))
