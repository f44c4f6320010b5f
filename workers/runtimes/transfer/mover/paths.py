"""Paths as clients write them, where they are in a tree, and the folders that they need there.

Asked for: ``/a`` below the endpoint's base path, ``~/a`` below the home, ``a`` below the site's default path.
"""

from __future__ import annotations

import threading
from typing import Final

from workers.storage.trees.base import StorageFailed, Tree, Trouble, clean
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


class Folders:
    """Folders of a target: each is made, or found, once by all threads."""

    def __init__(self, tree: Tree, top: bytes | None) -> None:
        """``top``: nothing above it may be made (extra_opts.parent false); None: everything may."""
        self._tree = tree
        self._top = top
        self._lock = threading.Lock()
        self._known: dict[bytes, threading.Event | None] = {b"/": None, b"": None}
        #: Made by us, so that nothing is in them that we have not put there.
        self._fresh: set[bytes] = set()

    def need(self, folder: bytes) -> bool:
        """Make it and what is missing above it. True when this batch made it: it began empty.

        Raises StorageFailed.
        """
        if self._known.get(folder, self) is None:
            return folder in self._fresh
        mine = threading.Event()
        while (other := self._claimed(folder, mine)) is not mine:
            if other is None:
                return folder in self._fresh
            other.wait()  # another thread makes it; when it fails we try ourselves
        try:
            fresh = self._make(folder)
        except BaseException:
            with self._lock:
                del self._known[folder]
            mine.set()
            raise
        with self._lock:
            self._known[folder] = None
            if fresh:
                self._fresh.add(folder)
        mine.set()
        return fresh

    def _claimed(self, folder: bytes, mine: threading.Event) -> threading.Event | None:
        """Whoever makes this folder, from now on ``mine``; None: it is there."""
        with self._lock:
            return self._known.setdefault(folder, mine)

    def _make(self, folder: bytes) -> bool:
        if not self._tree.traits.folders:
            return False
        if self._top is not None and not _is_below(folder, self._top):
            self._tree.stat(folder)
            return False
        try:
            self._tree.mkdir(folder)
        except StorageFailed as failed:
            if failed.trouble is Trouble.EXISTS or (
                failed.trouble is Trouble.DENIED and self._is_there(folder)
            ):
                return False
            if failed.trouble is not Trouble.MISSING:
                raise
            self.need(folder.rpartition(b"/")[0])
            try:
                self._tree.mkdir(folder)
            except StorageFailed as second:
                if second.trouble is not Trouble.EXISTS:
                    raise
                return False
        return True

    def _is_there(self, folder: bytes) -> bool:
        """Some storages refuse to make what may not be made by us before they look whether it is there."""
        try:
            return self._tree.stat(folder).is_folder
        except StorageFailed:
            return False


def _is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")
