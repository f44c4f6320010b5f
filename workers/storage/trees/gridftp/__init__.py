"""GridFTP: the Globus library of the Grid Community Toolkit, in processes of its own.

speaker/  one such process: a program on ctypes and libglobus_ftp_client, which imports nothing of ours
sessions  speakers that are kept between two questions, and what passes between them and us
identity  whom a speaker takes us for: proxy certificate, authorities, environment
facts     what servers tell of files, names in URLs
errors    what a refusal means
writing   the part of a file
asking    questions at a path, and whether it stays in the site
tree      the tree

gfal2, which stands on the same library, would do most of it; but its list of a folder tells no links,
cuts spaces off the ends of names and ends at the first name that it cannot read.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

from workers.storage.trees.base import StorageFailed, Tree, Trouble
from workers.storage.trees.gridftp.sessions import SPEAKER
from workers.storage.trees.gridftp.tree import GridFtpTree
from workers.vocabulary.transfers.reach import Reach


@cache
def missing() -> str:
    """Asked once: a process is started for it."""
    found = subprocess.run(
        [sys.executable, "-I", "-S", str(SPEAKER), "probe"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if found.returncode == 0:
        return ""
    words = found.stderr.strip().rpartition("\n")[2] or f"it ended with {found.returncode}"
    return f"the Globus library does not work here (Debian: libglobus-ftp-client2): {words}"


def open_tree(reach: Reach, streams: int) -> Tree:
    """Raises StorageFailed: REFUSED for a site that no operator made, OTHER without the library, DENIED."""
    if reach.guarded:
        raise StorageFailed(
            f"{reach.shown}: only sites that an operator made may use GridFTP, whose servers name "
            f"the addresses that data goes to",
            Trouble.REFUSED,
        )
    lacking = missing()
    if lacking:
        raise StorageFailed(f"{reach.shown}: {lacking}", Trouble.OTHER)
    return GridFtpTree(reach, streams)
