"""LOCAL: a folder of the node itself, which nothing escapes.

beneath   opening what is below a folder, whatever links and races say
errors    what an OSError means
reading   looking at files and reading them
writing   the part of a file, and renames that replace nothing
tree      the tree

Nothing is remembered between two calls, no descriptor of a folder either: the kernel's walk from the root
costs 3 us, and a remembered folder may have moved meanwhile.
"""

from __future__ import annotations

import os
import sys

from django.conf import settings

from workers.storage.trees.base import StorageFailed, Tree, Trouble, clean
from workers.vocabulary.transfers.reach import Reach


def missing() -> str:
    return "" if sys.platform == "linux" else "LOCAL sites need Linux"


def open_tree(reach: Reach, streams: int) -> Tree:
    """The folder ``reach.path``, which GANTRY_LOCAL_SITES of this node has to allow. Raises StorageFailed:
    DENIED; MISSING when it is not there."""
    # Not above: on other systems this module still has to say what is missing.
    from workers.storage.trees.local.beneath import Root
    from workers.storage.trees.local.tree import LocalTree

    path = os.fsencode(reach.path)
    return LocalTree(Root.open(_allowed(path), path), clean(os.fsencode(reach.default_path)))


def _allowed(path: bytes) -> bytes:
    """The folder of GANTRY_LOCAL_SITES that ``path`` is, or is below of."""
    if not path.startswith(b"/") or b".." in path.split(b"/"):
        raise StorageFailed(
            f'{os.fsdecode(path)!r} is no absolute path without "..": a LOCAL site begins at one',
            Trouble.DENIED,
        )
    for folder in settings.GANTRY_LOCAL_SITES:
        inside = os.path.normpath(os.fsencode(folder))
        if inside.startswith(b"/") and os.path.commonpath((inside, os.path.normpath(path))) == inside:
            return inside
    raise StorageFailed(
        f"{os.fsdecode(path)!r} is in no folder of this node's GANTRY_LOCAL_SITES, so no LOCAL site may "
        f"begin there: an operator can add it and start the worker anew",
        Trouble.DENIED,
    )
