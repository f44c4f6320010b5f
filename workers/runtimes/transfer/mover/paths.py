"""Paths as clients write them, and where they are in a tree. Pure.

Asked for: ``/a`` below the endpoint's base path, ``~/a`` below the home, ``a`` below the site's default path.
"""

from __future__ import annotations

from typing import Final

from workers.storage.trees.base import Tree, clean
from workers.vocabulary.transfers.names import name_from_wire

HOME: Final = b"~"


def asked(text: str, escaped: bool) -> bytes:
    """The bytes of a path in an order. Raises ValueError."""
    return name_from_wire(text, escaped)


def located(path: bytes, tree: Tree, default_path: str) -> bytes:
    """Where it is in the tree: absolute and clean. Raises StorageFailed."""
    if path == HOME or path.startswith(b"~/"):
        path = tree.home() + b"/" + path[2:]
    elif not path.startswith(b"/"):
        path = default_path.encode() + b"/" + path
    return clean(path)


def trimmed(path: bytes) -> bytes:
    """As asked, without trailing slashes; ``/`` is itself."""
    return path.rstrip(b"/") or path[:1]


def below(folder: bytes, name: bytes) -> bytes:
    """A name in a folder as asked; the empty folder is the site's default path."""
    if not folder:
        return name
    return folder + name if folder.endswith(b"/") else folder + b"/" + name


def parent(path: bytes) -> bytes:
    """The folder of a path, as asked: of ``f`` it is empty, of ``/f`` it is ``/``."""
    head, slash, _ = trimmed(path).rpartition(b"/")
    return head or slash


def last(path: bytes) -> bytes:
    """The last component."""
    return trimmed(path).rpartition(b"/")[2]
