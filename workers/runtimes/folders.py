"""Folders of runs on a node: where scratch lies, and removing what a run may have locked.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def scratch_root(node_dir: Path) -> Path:
    """Where scratch folders lie: in the node's folder if other users may pass through, else in /var/tmp.

    Raises PermissionError when somebody else has put a folder there.
    """
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


def remove_tree(folder: Path) -> None:
    """Remove a folder of a run, which may have taken the write bit from what is in it; it may be gone.

    What the folder lies in is not touched: the commands of other runs pass through it.
    """

    def mend(function: Callable[[str], object], path: str, info: object) -> None:
        at = Path(path)
        with contextlib.suppress(OSError):
            if at != folder:
                at.parent.chmod(0o700)
            if not at.is_symlink():
                at.chmod(0o700)
            function(path)
            return
        error = info[1] if isinstance(info, tuple) else None
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise error

    shutil.rmtree(folder, onerror=mend)
