"""A site's tree at a WebDAV server.

What WebDAV does not know, and what is done instead: it removes folders with all that is in them, so a file is
asked for what it is before it is removed or replaced, and a folder whether it is empty; who puts something
there in between loses it. It resumes no upload (Content-Range with PUT is not standard): a part of an earlier
attempt is removed. Its name for ``a/b`` cannot be told from one with an encoded slash: such a list fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from workers.storage.trees.base import (
    Entry,
    Part,
    Plain,
    Receiving,
    StorageFailed,
    Traits,
    TransferOptions,
    Tree,
    Trouble,
    clean,
    inside,
    shown,
)
from workers.storage.trees.filling import Filling, discard_parts
from workers.storage.trees.webdav.answers import Told, time_ns
from workers.storage.trees.webdav.checksums import DIGESTS, of_digest, of_words
from workers.storage.trees.webdav.client import Dav
from workers.storage.trees.webdav.names import Names
from workers.storage.trees.webdav.shelf import DavShelf
from workers.vocabulary.transfers.reach import Reach

_PROPS: Final = b"""<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>\
<resourcetype/><getcontentlength/><getlastmodified/><getetag/></prop></propfind>"""
_QUOTA: Final = b"""<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>\
<quota-available-bytes/></prop></propfind>"""
_CHECKSUMS: Final = b"""<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>\
<checksums xmlns="http://owncloud.org/ns"/></prop></propfind>"""
_XML: Final = "application/xml; charset=utf-8"


class WebdavTree(Plain):
    """Keeps ``base.Tree``."""

    traits = Traits()

    def __init__(self, reach: Reach, streams: int) -> None:
        self.dav = Dav(reach, max(1, streams))
        self.default_path = clean(reach.default_path.encode())
        #: Ways in which it was asked for a checksum and had none.
        self._mute: set[tuple[str, str]] = set()
        #: The server shows a file when it is whole, and not before.
        self.shows_late = False
        self._names = Names(self)

    def close(self) -> None:
        self.dav.close()

    # --- looking ------------------------------------------------------------------------------------------

    def stat(self, path: bytes) -> Entry:
        path = clean(path)
        for told in self._properties(path, "0", _PROPS):
            return _entry(told, path.rpartition(b"/")[2])
        raise StorageFailed(
            f"{self.dav.where}: {shown(path)}: the server told nothing about it", Trouble.OTHER
        )

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = clean(path)
        here = (self.dav.root + path).rstrip(b"/")
        try:
            for told in self._properties(path, "1", _PROPS, slash=True):
                if told.path == here:
                    if not told.is_folder:
                        raise self._no_folder(path)
                    continue
                if (
                    told.path != here + b"/" + told.name
                    or told.name in (b"", b".", b"..")
                    or b"/" in told.name
                ):
                    raise StorageFailed(
                        f"{self.dav.where}: the list of {shown(path)} has {shown(told.path)} in it, which is "
                        "no name there",
                        Trouble.OTHER,
                    )
                yield _entry(told, told.name)
        except StorageFailed as failed:
            if failed.trouble is Trouble.MISSING and not self.stat(path).is_folder:
                raise self._no_folder(path) from None
            raise

    def _properties(self, path: bytes, depth: str, props: bytes, *, slash: bool = False) -> Iterator[Told]:
        headers = {"Depth": depth, "Content-Type": _XML}
        with self.dav.asked("PROPFIND", path, headers, props, good=(207,), slash=slash) as answer:
            for told in self.dav.listed(path, answer):
                if told.status >= 400:
                    raise self.dav.refused("PROPFIND", path, told.status)
                yield told

    def free_space(self, path: bytes) -> int | None:
        """Of the folder, or of what is there of the way to it."""
        path = clean(path)
        try:
            return next((told.available for told in self._properties(path, "0", _QUOTA)), None)
        except StorageFailed as failed:
            if failed.trouble is not Trouble.MISSING or path == b"/":
                raise
        return self.free_space(path + b"/..")

    # --- reading ------------------------------------------------------------------------------------------

    @contextmanager
    def read(self, path: bytes, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        path = clean(path)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if version.startswith('"'):
            headers["If-Match"] = version
        try:
            with self.dav.asked("GET", path, headers, good=(200, 206, 416)) as answer:
                if (
                    answer.headers.get("Content-Type", "").startswith("text/html")
                    and self.stat(path).is_folder
                ):
                    raise StorageFailed(f"{self.dav.where}: {shown(path)} is a folder", Trouble.IS_FOLDER)
                found = _version(
                    answer.headers.get("ETag", ""), time_ns(answer.headers.get("Last-Modified", ""))
                )
                if version and found != version and answer.status_code != 416:
                    raise self._changed(path)
                if answer.status_code == 416:
                    yield iter(())  # there is nothing after its end
                    return
                if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(
                    f"bytes {offset}-"
                ):
                    raise StorageFailed(
                        f"{self.dav.where}: {shown(path)}: the server sent another part of it", Trouble.OTHER
                    )
                yield self._pieces(path, answer, 0 if answer.status_code == 206 else offset)
        except StorageFailed as failed:
            if failed.status == 412:
                raise self._changed(path) from None
            raise

    def _pieces(self, path: bytes, answer: Any, skip: int) -> Iterator[bytes]:
        """A server that knows no ranges sends what is there already once more."""
        for piece in self.dav.pieces(path, answer):
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))

    def checksum(self, path: bytes, algorithm: str) -> str:
        """By Want-Digest (RFC 3230: dCache, XRootD, StoRM) or ownCloud's property. Never by the ETag: nothing
        says whether that is one."""
        path = clean(path)
        name = DIGESTS.get(algorithm, "")
        if not name:
            return ""
        found = ""
        if ("digest", algorithm) not in self._mute:
            headers = self.dav.ask("HEAD", path, {"Want-Digest": name}, good=(200,))
            found = of_digest(headers.get("Digest", ""), algorithm) or of_words(
                headers.get("OC-Checksum", ""), algorithm
            )
            if not found:
                self._mute.add(("digest", algorithm))
        if not found and ("property", algorithm) not in self._mute:
            for told in self._properties(path, "0", _CHECKSUMS):
                found = of_words(told.checksums, algorithm)
            if not found:
                self._mute.add(("property", algorithm))
        return found

    # --- writing ------------------------------------------------------------------------------------------

    def receive(self, path: bytes, part: Part, size: int) -> Receiving:
        path = inside(path)
        self._names.check(path)
        return Filling(DavShelf(self, size), path, part, size)

    def discard(self, path: bytes, part: Part) -> None:
        discard_parts(DavShelf(self), clean(path), part)

    def remove(self, path: bytes) -> None:
        path = inside(path)
        if self.stat(path).is_folder:
            raise StorageFailed(f"{self.dav.where}: {shown(path)} is a folder", Trouble.IS_FOLDER)
        self.dav.ask("DELETE", path)

    def remove_folder(self, path: bytes) -> None:
        path = inside(path)
        for entry in self.scan(path):
            raise StorageFailed(
                f"{self.dav.where}: {shown(path)} is not empty: {shown(entry.name)} is in it",
                Trouble.NOT_EMPTY,
            )
        self.dav.ask("DELETE", path, slash=True)

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        path = clean(path)
        if path == b"/":
            raise self._exists(path)
        self._names.check(path)
        try:
            self.dav.ask("MKCOL", path, slash=True)
        except StorageFailed as failed:
            if failed.status == 405:
                raise self._exists(path) from None
            raise

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        source, target = inside(source), inside(target)
        self._names.check(target)
        # Where it may overwrite, it would replace a file by a folder, too.
        self.move(source, target, overwrite=overwrite and self.stat(source).is_file)

    def move(self, source: bytes, target: bytes, *, overwrite: bool) -> None:
        """Never onto a folder, which a MOVE that may overwrite would remove first."""
        if target.startswith(source + b"/"):
            raise StorageFailed(f"{self.dav.where}: {shown(target)} is within its source", Trouble.DENIED)
        if source == target:
            self.stat(source)
            if not overwrite:
                raise self._exists(target)
            return
        if overwrite:
            self.stat(source)  # some servers remove what is there before they find that nothing comes
            try:
                if self.stat(target).is_folder:
                    raise self._exists(target)
            except StorageFailed as failed:
                if failed.trouble is not Trouble.MISSING:
                    raise
        headers = {"Destination": self.dav.url(target), "Overwrite": "T" if overwrite else "F"}
        try:
            self.dav.ask("MOVE", source, headers)
        except StorageFailed as failed:
            if failed.status == 412:
                raise self._exists(target) from None
            if failed.status in (403, 409):
                self.stat(source)  # some say so of a source that is not there
            raise

    # --- copies by the server -----------------------------------------------------------------------------

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: Receiving,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        if not isinstance(source, WebdavTree) or source.dav.account != self.dav.account:
            return False
        if not isinstance(receiving, Filling):
            return False
        headers = {"Destination": self.dav.url(receiving.part), "Overwrite": "T", "Depth": "0"}
        try:
            source.dav.ask("COPY", clean(path), headers, wait_s=options.timeout_s)
        except StorageFailed as failed:
            if failed.status in (405, 501, 502):
                return False
            raise
        receiving.filled()
        moved(max(0, receiving.size))
        return True

    # --- parts --------------------------------------------------------------------------------------------

    def _exists(self, path: bytes) -> StorageFailed:
        return StorageFailed(f"{self.dav.where}: {shown(path)} is there already", Trouble.EXISTS)

    def _changed(self, path: bytes) -> StorageFailed:
        return StorageFailed(f"{self.dav.where}: {shown(path)} has changed meanwhile", Trouble.CHANGED)

    def _no_folder(self, path: bytes) -> StorageFailed:
        return StorageFailed(f"{self.dav.where}: {shown(path)} is no folder", Trouble.NOT_FOLDER)


def _entry(told: Told, name: bytes) -> Entry:
    if told.is_folder:
        return Entry(name, 0o040755, 0, told.mtime_ns)
    return Entry(name, 0o100644, told.size, told.mtime_ns, version=_version(told.etag, told.mtime_ns))


def _version(etag: str, mtime_ns: int) -> str:
    """A strong ETag with its quotes, else the time of change."""
    etag = etag.strip()
    if etag and not etag.startswith("W/"):
        return etag if etag.startswith('"') else f'"{etag}"'
    return str(mtime_ns) if mtime_ns else ""
