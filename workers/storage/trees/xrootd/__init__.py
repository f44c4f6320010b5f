"""XRootD servers, with PyPI's xrootd (module XRootD.client, a wheel with the C++ client in it).

    client   the library within bounds: its process-wide limits, one way to ask and to be told of failures
    errors   what an answer means
    listing  what is in a folder, whatever the server leaves out
    content  reading and writing with several requests under way
    tree     the tree

What XRootD is not, and what that means here:
- It follows redirects by itself, to any address that a server names: the guard of addresses could not ask
  about them, so only sites that operators made may use it.
- Names are UTF-8 without "?" (begins what is no part of a path) and without newlines (separate the names of a
  listing); any other name is refused by name, and a folder in which the server's own people have made one is
  not listed rather than listed wrongly.
- It tells links from nothing else. A link to a file is a file; one that leads nowhere is told as a link; one
  to a folder is known by what is above it (``listing.links_told``), where the server has the files itself.
  Behind a redirector it is a folder, but to one around it: that is told by the folder's id, so a walk ends.
- Its rename replaces what is there. Without ``overwrite`` the target is looked at first: who makes a file
  there in the same moment is overwritten. Opening with NEW would reserve the name, but as an empty file that
  everybody sees under its final name.
- Checksums are kept by the server beside a file and are good for its mtime, in whole seconds: a file that was
  changed twice within one, in place and with a question between, has the old one until it is changed again.
- Times cannot be set.
- With a proxy certificate (gsi) each tree uses its own, and a connection of its own; without one none, above
  all not that of the node's account. Servers are trusted by the node's authorities (X509_CERT_DIR, which is
  the process's): a site's ``cas`` do not count.
- Copies between two servers pass through us: third-party copies want xrdcp at the server.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from workers.storage.base import StorageFailed, Trouble
from workers.vocabulary.transfers.reach import Reach

if TYPE_CHECKING:
    from workers.storage.trees.xrootd.tree import XrootdTree

_USER: Final = re.compile(r"[A-Za-z0-9._-]*")


def missing() -> str:
    """What this machine lacks; "" when nothing."""
    return "" if find_spec("XRootD") else "PyPI's xrootd is not installed: there is no wheel for this machine"


def open_tree(reach: Reach, streams: int = 4) -> XrootdTree:
    """Nothing is connected to yet. ``streams`` does not matter: all requests share one connection.

    Raises StorageFailed REFUSED for a site that no operator made, DENIED for a user's name that is none.
    """
    if reach.guarded:
        raise StorageFailed(
            f"{reach.shown}: only sites that an operator made may use XROOTD: its client follows redirects "
            f"by itself, wherever they lead",
            Trouble.REFUSED,
        )
    if not _USER.fullmatch(reach.credentials.username):
        raise StorageFailed(
            f"{reach.shown}: the user's name may have letters, digits and . _ - only: it is a part of the "
            f"address",
            Trouble.DENIED,
        )
    from workers.storage.trees.xrootd.tree import XrootdTree

    return XrootdTree(reach)
