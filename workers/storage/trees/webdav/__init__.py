"""WebDAV (RFC 4918): webdav4's HTTP client, names and answers read by us.

    tree      the Tree: what the requests mean
    client    requests to one server as one user; what its refusals are
    names     what a server takes for another name
    checksums as servers tell them
    answers   a list of properties (207) read as it comes
    shelf     what a file's Filling asks
    writing   a PUT that is fed piece by piece

webdav4's own calls are not used: they read a folder's list into memory before the first name, take "%20" in
a name for a space that is encoded already, and give no way to read with If-Match or to feed an upload.
"""

from workers.storage.trees.webdav.tree import WebdavTree
from workers.vocabulary.transfers.reach import Reach


def open_tree(reach: Reach, streams: int) -> WebdavTree:
    return WebdavTree(reach, streams)


def missing() -> str:
    """All that it needs is installed with the project."""
    return ""


__all__ = ["WebdavTree", "missing", "open_tree"]
