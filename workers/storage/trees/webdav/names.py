"""Names that a server takes for others."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from workers.storage.trees.base import StorageFailed, Trouble, shown

if TYPE_CHECKING:
    from workers.storage.trees.webdav.tree import WebdavTree

#: Characters in names that servers are known to stumble over.
_ODD: Final = re.compile(r"[?;#\\\x01-\x1f\x7f]")


class Names:
    """What one server can hold."""

    def __init__(self, tree: WebdavTree) -> None:
        self._tree = tree
        #: Characters that it was asked about.
        self._understood: dict[str, bool] = {}

    def check(self, path: bytes) -> None:
        """Raises StorageFailed NAME where the server cannot hold it."""
        try:
            text = path.decode()
        except UnicodeDecodeError:
            raise self._refused(path, "is no UTF-8, which names are in WebDAV") from None
        for char in sorted(set(_ODD.findall(text))):
            if char not in self._understood:
                self._understood[char] = self._understands(path.rpartition(b"/")[0], char.encode())
            if not self._understood[char]:
                raise self._refused(path, f"has {char!r} in it, which this server takes for something else")

    def _refused(self, path: bytes, words: str) -> StorageFailed:
        return StorageFailed(f"{self._tree.dav.where}: {shown(path)} {words}", Trouble.NAME)

    def _understands(self, parent: bytes, char: bytes) -> bool:
        """Does a file keep the character in its name? Asked once, by one in a folder of our own.

        Some servers cut or strip it from a Destination: a file would come to lie under another name, in place
        of what is there. Here it ends the name, so that without it this is the same.
        """
        dav, folder = self._tree.dav, parent + b"/." + uuid.uuid4().hex.encode() + b".part"
        dav.ask("MKCOL", folder, slash=True)
        try:
            dav.ask("PUT", folder + b"/x", {"Content-Length": "0"}, content=b"")
            self._tree.move(folder + b"/x", folder + b"/x" + char, overwrite=False)
            return [entry.name for entry in self._tree.scan(folder)] == [b"x" + char]
        except StorageFailed as failed:
            if failed.trouble in (Trouble.AWAY, Trouble.FULL):
                raise
            return False
        finally:
            dav.ask("DELETE", folder, slash=True)
