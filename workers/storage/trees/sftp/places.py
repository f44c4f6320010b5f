"""Where a path of the site lies at the server, and that it never leads out of the site.

The rule: the real path of the folder in which something is done, without links, must be the site's base path
or below it, and what is done names that real path. A link in the place of the last name is not followed by
what writes, makes, renames and removes; what reads asks for the real path of the whole. Where the base path
is "/" nothing is asked.

What it costs: one question per folder, whose answer is good for ``_GOOD_S``; two more where a file that is
read is a link.

What it cannot do: SFTP has no descriptors of folders. Whoever may rename folders of the site on the server
itself can put a link in the place of one between our question and what is done then, and have our account
read or write there what it may. Who lets others rename there what this account works on has to keep them from
it at the server (a chroot, or rights of folders).
"""

from __future__ import annotations

import secrets
import stat as modes
import time
from typing import Final

import asyncssh

from workers.storage.trees.base import StorageFailed, Trouble, clean, shown
from workers.storage.trees.sftp.errors import told
from workers.storage.trees.sftp.line import Line

#: How long, in seconds, a folder is taken to be where it was.
_GOOD_S: Final = 5.0
#: Folders that are remembered.
_MOST: Final = 4096


class Places:
    """Of one tree. Used from the loop's thread only, but for ``home``."""

    def __init__(self) -> None:
        # Stands for a home that is not in the site: no name that anybody could have given to a folder.
        self._token = f".home-{secrets.token_hex(16)}".encode()
        self._known: dict[bytes, tuple[bytes, float]] = {}

    def home(self, line: Line) -> bytes:
        """The account's home as a path of the site, also where it lies outside of it."""
        if _within(line.home, line.base):
            return clean(line.home if line.base == b"/" else line.home[len(line.base) :])
        return b"/" + self._token

    def forget(self) -> None:
        """Folders have been renamed or removed."""
        self._known.clear()

    async def folder(self, line: Line, path: bytes) -> bytes:
        """The real path of a folder. Raises StorageFailed."""
        found = self._known.get(path)
        if found is not None and found[1] > time.monotonic():
            return found[0]
        real = await self.followed(line, path)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[path] = (real, time.monotonic() + _GOOD_S)
        return real

    async def named(self, line: Line, path: bytes) -> bytes:
        """Where ``path`` is or would be, itself: only links on the way to it are followed."""
        folder, _, name = path.rpartition(b"/")
        if not name or path == b"/" + self._token:
            raise StorageFailed(f"{shown(path)}: that is where the site begins", Trouble.DENIED)
        return _joined(await self.folder(line, folder or b"/"), name)

    async def followed(self, line: Line, path: bytes) -> bytes:
        """The real path of what is there, links followed as long as they stay in the site."""
        root, asked = self._asked(line, path)
        if root == b"/":
            return asked
        with told(path):
            real = await line.ask(line.real(asked))
        if not _within(real, root):
            raise StorageFailed(f"{shown(path)} leads out of the site by a link", Trouble.DENIED)
        return real

    async def looked_at(self, line: Line, path: bytes) -> tuple[bytes, asyncssh.SFTPAttrs]:
        """The real path of what is there, links followed, and its attributes."""
        _, asked = self._asked(line, path)
        if asked not in (line.base, line.home):
            real = await self.named(line, path)
            with told(path):
                found = await line.ask(line.sftp.lstat(real, 0))
            if not modes.S_ISLNK(found.permissions or 0):
                return real, found
        real = await self.followed(line, path)
        with told(path):
            return real, await line.ask(line.sftp.stat(real, 0))

    def _asked(self, line: Line, path: bytes) -> tuple[bytes, bytes]:
        """The folder that must not be left, and the path at the server."""
        mark = b"/" + self._token
        if path == mark or path.startswith(mark + b"/"):
            return line.home, _joined(line.home, path[len(mark) + 1 :])
        return line.base, _joined(line.base, path[1:])


def _joined(folder: bytes, below: bytes) -> bytes:
    if not below:
        return folder
    return (b"" if folder == b"/" else folder) + b"/" + below


def _within(real: bytes, root: bytes) -> bool:
    return root == b"/" or real == root or real.startswith(root + b"/")
