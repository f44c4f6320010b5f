"""What a file's ``Filling`` asks of a WebDAV server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from workers.storage.trees.base import Entry, Keeping, StorageFailed, Traits, Trouble
from workers.storage.trees.parts import is_part
from workers.storage.trees.webdav.writing import PutWriter

if TYPE_CHECKING:
    from workers.storage.trees.webdav.tree import WebdavTree

#: Looks at what a server may need a moment for, and seconds between them.
_LOOKS: Final = 40
_LOOK_S: Final = 0.05


class DavShelf:
    """A ``filling.Shelf`` for one file of ``size`` bytes (-1: unknown): many servers take no PUT without a
    length."""

    def __init__(self, tree: WebdavTree, size: int = -1) -> None:
        self._tree = tree
        self._size = size

    @property
    def traits(self) -> Traits:
        return self._tree.traits

    def open_part(self, part: bytes, offset: int) -> PutWriter:
        """Whatever had the name was removed when it was taken over (``move``)."""

        def put(content: bytes | Iterator[bytes], length: int) -> None:
            headers = {"Content-Type": "application/octet-stream"}
            if length >= 0:
                headers["Content-Length"] = str(length)
            self._tree.dav.ask("PUT", part, headers, content=content)

        return PutWriter(part, self._size, put, lambda: self._appears(part))

    def _appears(self, part: bytes) -> None:
        """Wait until the part is there: only then a later attempt can take it away from this one. Some
        servers show it when it is whole, which is found out once."""
        if self._tree.shows_late:
            return
        for _ in range(_LOOKS):
            if self.size_of(part) is not None:
                return
            time.sleep(_LOOK_S)
        self._tree.shows_late = True

    def size_of(self, part: bytes) -> int | None:
        try:
            return self.stat(part).size
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING:
                return None
            raise

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        if is_part(target.rpartition(b"/")[2]):
            # Taken over from an earlier attempt. It cannot be gone on with, and a PUT over it might write
            # into the same file as that one's, which may still be under way.
            self.unlink(part)
        else:
            self._tree.move(part, target, overwrite=overwrite)

    def unlink(self, part: bytes) -> None:
        """Some servers let nobody touch what is being written, and notice its end a moment later."""
        for look in range(_LOOKS):
            try:
                self._tree.dav.ask("DELETE", part)
                return
            except StorageFailed as failed:
                if failed.status != 423 or look == _LOOKS - 1:
                    raise
            time.sleep(_LOOK_S)

    def keep(self, part: bytes, keeping: Keeping) -> None:
        """WebDAV has no way that servers agree about."""

    def stat(self, path: bytes) -> Entry:
        return self._tree.stat(path)

    def checksum(self, path: bytes, algorithm: str) -> str:
        return self._tree.checksum(path, algorithm)
