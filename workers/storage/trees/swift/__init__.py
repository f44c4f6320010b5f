"""A container of an OpenStack Swift, or what is below a prefix in it, on workers/storage/swift.

    access     as whom, and the connections that threads borrow
    listing    entries of folders, which Swift does not have
    receiving  a file that is written: one object, or segments and their manifest
    copying    copies that the server makes
    tree       the tree

Objects, and what that means here:
- Folders are not real: "a/b" is in one, "a/" (application/directory, no bytes) is an empty one. One of which
  the last object goes is gone, unless it was made.
- What is not larger than a segment is kept in a file until the end and is then one request; what is larger
  goes out in segments meanwhile, and the manifest makes it visible. Whoever takes over another attempt's
  segments copies them (the server does) and removes its own: a manifest of theirs is refused from then on.
- A file that may not be replaced is stored with ``If-None-Match: *``; whether an empty folder has its name is
  looked at right before. Where "a/b" is, "a" may be, too, and replaces nothing: then both are told.
- Renaming is copying and removing, object by object.
- ``mtime`` is kept as rclone does, in X-Object-Meta-Mtime; listings do not show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.vocabulary.transfers.reach import Reach

if TYPE_CHECKING:
    from workers.storage.trees.swift.tree import SwiftTree


def missing() -> str:
    """What this machine lacks; "" when nothing."""
    return ""


def open_tree(reach: Reach, streams: int = 4) -> SwiftTree:
    """Nothing is connected to yet; each thread that does something has a connection. Raises StorageFailed."""
    from workers.storage.trees.swift.tree import SwiftTree

    return SwiftTree(reach)
