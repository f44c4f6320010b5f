"""A site's tree at an XRootD server. What XRootD cannot do is said in the package's docstring."""

from __future__ import annotations

import os
import re
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Final

from workers.storage.base import StorageFailed, Trouble
from workers.storage.trees.base import (
    ALGORITHMS,
    Entry,
    Keeping,
    Part,
    Plain,
    Traits,
    clean,
    inside,
    shown,
)
from workers.storage.trees.filling import Filling, discard_parts, unlink_quietly
from workers.storage.trees.xrootd import errors
from workers.storage.trees.xrootd.client import LONG_S, REQUEST_S, OpenFlags, QueryCode, Server, text_of
from workers.storage.trees.xrootd.content import Writing, opened, pieces
from workers.storage.trees.xrootd.listing import entry_of, links_told, listed
from workers.vocabulary.transfers.reach import Reach

#: Folders that are remembered: that they are there, and what they are.
_MOST_KNOWN: Final = 10_000
_TRAITS: Final = Traits(appends=True, modes=True)


class XrootdTree(Plain):
    """Keeps ``base.Tree``, and gives ``filling.Shelf`` what it needs."""

    def __init__(self, reach: Reach) -> None:
        self._base = text_of(clean(os.fsencode(reach.path))).rstrip("/")
        self.default_path = clean(os.fsencode(reach.default_path))
        proxy = reach.credentials.proxy
        # Without a proxy of this user none is used, above all not that of the node's account.
        more = f"xrd.gsiusrpxy={_kept(proxy) if proxy else '/dev/null'}"
        self._server = Server(reach.host, reach.port, reach.credentials.username, more)
        self._traits: Traits | None = None
        self._alone: bool | None = None
        #: Folder -> its version.
        self._known: dict[bytes, str] = {}

    @property
    def traits(self) -> Traits:  # type: ignore[override] # nobody sets it
        """Which checksums a server knows is asked once, as soon as it answers."""
        if self._traits is None:
            status, answer = self._server.files.query(QueryCode.CONFIG, "chksum", timeout=REQUEST_S)
            if not status.ok:
                return _TRAITS
            names = re.findall(r"[0-9]+:([a-z0-9]+)", bytes(answer or b"").decode("ascii", "replace"))
            self._traits = replace(_TRAITS, checksums=tuple(name for name in ALGORITHMS if name in names))
        return self._traits

    # --- what is there -----------------------------------------------------------------------------------

    def stat(self, path: bytes) -> Entry:
        path = clean(path)
        status, told = self._server.files.stat(self._text(path), timeout=REQUEST_S)
        if not status.ok:
            failure = errors.failed(self._server.shown, shown(path), status)
            if failure.trouble is Trouble.NOT_FOLDER:  # it would be below a file
                raise StorageFailed(failure.message, Trouble.MISSING)
            raise failure
        return entry_of(path.rpartition(b"/")[2].decode(), vars(told))

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = clean(path)
        around = self._around(path)
        text = self._text(path)
        found = listed(self._server, path, text)
        if self._is_alone():
            found = links_told(self._server, text, self._known.get(path) or self.stat(path).version, found)
        for entry in found:
            if entry.is_folder and entry.version in around:
                # A link to a folder around it, which the server does not tell from a folder.
                yield entry._replace(mode=modes.S_IFLNK | 0o777)
                continue
            if entry.is_folder:
                self._remember(path.rstrip(b"/") + b"/" + entry.name, entry.version)
            yield entry

    @contextmanager
    def read(self, path: bytes, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        path = clean(path)
        file = opened(self._server, path, self._text(path), OpenFlags.READ)
        try:
            found = entry_of("", vars(self._server.told(path, file.stat(timeout=REQUEST_S))))
            if version and found.version != version:
                raise StorageFailed(f"{shown(path)} has changed meanwhile", Trouble.CHANGED)
            content = pieces(self._server, path, file, offset, found.size)
            try:
                yield content
            finally:
                content.close()
        finally:
            file.close(timeout=REQUEST_S)

    def checksum(self, path: bytes, algorithm: str) -> str:
        path = clean(path)
        status, answer = self._server.files.query(
            QueryCode.CHECKSUM, f"{self._text(path)}?cks.type={algorithm}", timeout=LONG_S
        )
        if not status.ok and status.errno in errors.UNSUPPORTED:
            return ""
        kind, _, digest = (
            bytes(self._server.told(path, (status, answer)) or b"").rstrip(b"\0").decode().partition(" ")
        )
        return digest.strip().lower() if kind == algorithm else ""

    def free_space(self, path: bytes) -> int | None:
        """Of the nearest folder that is there: of any other the server says that nothing is free."""
        path = clean(path)
        while path != b"/" and not self._is_folder(path):
            path = path.rpartition(b"/")[0] or b"/"
        asked = self._server.files.query(QueryCode.SPACE, self._text(path), timeout=REQUEST_S)
        found = re.search(rb"oss\.free=([0-9]+)", bytes(self._server.told(path, asked) or b""))
        return int(found[1]) if found else None

    # --- files -------------------------------------------------------------------------------------------

    def receive(self, path: bytes, part: Part, size: int) -> Filling:
        return Filling(self, inside(path), part, size)

    def discard(self, path: bytes, part: Part) -> None:
        discard_parts(self, inside(path), part)

    def open_part(self, part: bytes, offset: int) -> Writing:
        text = self._text(part)
        if offset:
            return Writing(self._server, part, opened(self._server, part, text, OpenFlags.UPDATE), offset)
        self._there(part.rpartition(b"/")[0])  # the server would make it
        try:
            file = opened(self._server, part, text, OpenFlags.NEW, 0o644)
        except StorageFailed as error:
            if error.trouble is not Trouble.EXISTS:
                raise
            unlink_quietly(self, part)
            file = opened(self._server, part, text, OpenFlags.NEW, 0o644)
        return Writing(self._server, part, file, 0)

    def size_of(self, part: bytes) -> int | None:
        try:
            return self.stat(part).size
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            return None

    def move(self, part: bytes, target: bytes, *, overwrite: bool) -> None:
        self._refuse(target, overwrite)
        self._mv(part, target)

    def unlink(self, part: bytes) -> None:
        self._server.told(part, self._server.files.rm(self._text(part), timeout=REQUEST_S))

    def keep(self, part: bytes, keeping: Keeping) -> None:
        if keeping.mode is not None:
            mode = keeping.mode & 0o777
            self._server.told(part, self._server.files.chmod(self._text(part), mode, timeout=REQUEST_S))

    def remove(self, path: bytes) -> None:
        path = inside(path)
        if self._is_folder(path) and not self._is_link(path):  # it would remove an empty one
            raise StorageFailed(f"{shown(path)} is a folder", Trouble.IS_FOLDER)
        self.unlink(path)  # also a link; to a folder by its whole path some servers refuse that

    # --- folders, names ----------------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        path = inside(path)
        self._refuse(path, overwrite=False)  # it says that all is well where a folder was, too
        bits = 0o755 if mode is None else mode & 0o777
        self._server.told(path, self._server.files.mkdir(self._text(path), mode=bits, timeout=REQUEST_S))

    def remove_folder(self, path: bytes) -> None:
        path = inside(path)
        if not self.stat(path).is_folder:  # it says that all is well where nothing was, too
            raise StorageFailed(f"{shown(path)} is a file", Trouble.NOT_FOLDER)
        self._forget(path)
        self._server.told(path, self._server.files.rmdir(self._text(path), timeout=REQUEST_S))

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        source, target = inside(source), inside(target)
        self._refuse(target, overwrite and not self.stat(source).is_folder)
        self._there(target.rpartition(b"/")[0])  # the server would make it
        self._forget(source)
        self._mv(source, target)

    # --- parts -------------------------------------------------------------------------------------------

    def _text(self, path: bytes) -> str:
        return self._base + text_of(path)

    def _mv(self, source: bytes, target: bytes) -> None:
        self._server.told(
            source, self._server.files.mv(self._text(source), self._text(target), timeout=REQUEST_S)
        )

    def _is_folder(self, path: bytes) -> bool:
        try:
            return self.stat(path).is_folder
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            return False

    def _is_link(self, folder: bytes) -> bool:
        """What is called a folder, as far as the server lets us see (``listing.links_told``)."""
        entry = self.stat(folder)
        above = folder.rpartition(b"/")[0] or b"/"
        if not self._is_alone():
            return False
        (told,) = links_told(self._server, self._text(above), self.stat(above).version, [entry])
        return told.is_link

    def _is_alone(self) -> bool:
        if self._alone is None:
            self._alone = self._server.is_alone()
        return self._alone

    def _refuse(self, target: bytes, overwrite: bool) -> None:
        """Raises StorageFailed EXISTS where something is that may not be replaced."""
        try:
            there = self.stat(target)
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            return
        if there.is_folder or not overwrite:
            what = "a folder" if there.is_folder else "a file"
            raise StorageFailed(f"{shown(target)} is there already: {what}", Trouble.EXISTS)

    def _there(self, folder: bytes) -> None:
        """Raises StorageFailed MISSING, NOT_FOLDER."""
        folder = folder or b"/"
        if folder not in self._known:
            found = self.stat(folder)
            if not found.is_folder:
                raise StorageFailed(f"{shown(folder)} is a file", Trouble.NOT_FOLDER)
            self._remember(folder, found.version)

    def _around(self, path: bytes) -> set[str]:
        """The versions of a folder and of those that it is in."""
        found = set()
        while True:
            if path not in self._known:
                self._remember(path, self.stat(path).version)
            found.add(self._known.get(path, ""))
            if path == b"/":
                return found
            path = path.rpartition(b"/")[0] or b"/"

    def _remember(self, folder: bytes, version: str) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[folder] = version

    def _forget(self, folder: bytes) -> None:
        """It goes, and what is in it."""
        for each in list(self._known):
            if each == folder or each.startswith(folder + b"/"):
                self._known.pop(each, None)


@cache
def _kept(proxy: str) -> str:
    """A file with it, which only this process can open and which is gone with it.

    It is never closed: the library knows its connections by this name, and another user's proxy under the
    same one would go on with the connection of the first.
    """
    file = os.memfd_create("proxy")
    os.fchmod(file, 0o600)  # the library insists
    os.write(file, proxy.encode())
    return f"/proc/self/fd/{file}"
