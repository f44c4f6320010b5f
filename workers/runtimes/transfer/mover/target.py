"""What a target's folders and free space need: parents made once, space asked before it is used."""

from __future__ import annotations

import threading
import time
from typing import Final

from workers.storage.trees.base import StorageFailed, Tree, Trouble, shown

#: Seconds for which a storage's word about its free space is good.
_SPACE_S: Final = 5.0


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
            if failed.trouble is Trouble.EXISTS:
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


def _is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


class Space:
    """Free space of a target as it was last told, less what was begun since."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._free: int | None = None
        self._asked_at = float("-inf")

    def take(self, path: bytes, size: int) -> None:
        """Before ``size`` bytes are sent. Raises StorageFailed FULL when they cannot fit."""
        if size <= 0:
            return
        with self._lock:
            short = self._free is not None and self._free < size
            if short or time.monotonic() - self._asked_at >= _SPACE_S:
                self._free = self._tree.free_space(path)
                self._asked_at = time.monotonic()
            if self._free is None:
                return
            if size > self._free:
                raise StorageFailed(
                    f"{shown(path)}: {size} bytes do not fit: the target has {self._free} bytes free",
                    Trouble.FULL,
                )
            self._free -= size
