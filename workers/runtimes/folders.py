"""Folders of runs on a node: where scratch lies, how they are laid out, their removal.

Standard library and the launcher only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import Final

from workers.launcher import removal

#: "Top of a hierarchy": ext4 puts each folder made in this one where the disk has fewest (chattr +T).
_TOP: Final = 0x20000


def runs_root(folder: Path) -> Path:
    """Make the folder in which a runtime keeps a folder for each run, for nobody else to look into."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    spread(folder)
    return folder


def scratch_root(node_dir: Path) -> Path:
    """Where scratch folders lie: in the node's folder if other users may pass through, else in /var/tmp.

    Raises PermissionError when somebody else has put a folder there.
    """
    found = _scratch_root(node_dir)
    spread(found)
    return found


def _scratch_root(node_dir: Path) -> Path:
    wanted = node_dir / "scratch"
    wanted.mkdir(parents=True, exist_ok=True)
    wanted.chmod(0o711)
    if os.geteuid() != 0 or all(parent.stat().st_mode & stat.S_IXOTH for parent in wanted.parents):
        return wanted
    other = Path("/var/tmp") / f"gantry-{hashlib.sha256(str(node_dir).encode()).hexdigest()[:12]}"  # noqa: S108
    with contextlib.suppress(FileExistsError):
        other.mkdir(mode=0o711)
    found = other.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{other} belongs to somebody else: remove it, or use another GANTRY_NODE_DIR")
    other.chmod(0o711)
    return other


def spread(folder: Path) -> None:
    """Let ext4 lay out what is made in this folder all over the disk, where it has no journal.

    There it looks at, and passes over, every inode that was deleted lately: with all runs in one corner of
    the disk, making a file costs more with each run. Elsewhere nothing is changed. See docs/decisions/0011.
    """
    if not _without_journal(folder):
        return
    with contextlib.suppress(OSError):  # it is only faster: no reason not to work
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            flags = removal.flags_of(descriptor)
            if not flags & _TOP:
                removal.set_flags(descriptor, flags | _TOP)
        finally:
            os.close(descriptor)


def _without_journal(folder: Path) -> bool:
    """Does this folder lie on an ext4 without a journal? False when the machine does not say."""
    try:
        device = folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").readlink().name
        return Path(f"/sys/fs/ext4/{name}/journal_task").read_text().strip() == "<none>"
    except OSError:
        return False


def remove_tree(folder: Path) -> None:
    """Remove a folder of a run, whatever the run has put there; it may be gone.

    What the folder lies in is not touched: the commands of other runs pass through it. Raises
    ``removal.NotRemovedError``, an OSError, when something cannot be removed; the rest is gone then.
    """
    removal.remove(str(folder))
