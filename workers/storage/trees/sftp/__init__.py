"""SFTP: the tree of an SSH server, with asyncssh; the room has one event loop thread per tree.

    hosts       which host key a server must have; what it offered instead
    connecting  the address checked, the host known, the account's own secrets and no others
    session     asyncssh's, with less to do for many small requests
    line        one connection: asked, watched, lost
    lines       the few connections of a tree, and the thread that serves them for all others
    places      where a path of the site lies at the server, and that it never leads out of the site
    reading     files and folders, streamed, several requests ahead
    writing     parts, several requests ahead; few round trips for a small file
    tree        the protocol of a tree
    errors      what asyncssh and servers say, as StorageFailed

No agent, no configuration and no key of the account that a worker runs as is ever read.
"""

from __future__ import annotations

from workers.storage.trees.base import Tree
from workers.vocabulary.transfers.reach import Reach


def open_tree(reach: Reach, streams: int) -> Tree:
    """Connects when it is first used."""
    from workers.storage.trees.sftp.tree import SftpTree

    return SftpTree(reach, streams)


def missing() -> str:
    """asyncssh is a dependency of the project: nothing."""
    return ""
