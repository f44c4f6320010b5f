"""A site's tree in a container of a Swift."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from django.conf import settings
from swiftclient.client import head_container, put_object

from workers.storage.base import StorageFailed, Trouble
from workers.storage.swift import listing as objects
from workers.storage.swift.connection import Connection
from workers.storage.swift.reading import checksum_of, is_segmented, reading
from workers.storage.trees.base import Entry, Part, Plain, Traits, TransferOptions, Tree, clean, inside, shown
from workers.storage.trees.swift import copying, listing
from workers.storage.trees.swift.access import Access
from workers.storage.trees.swift.receiving import SwiftReceiving
from workers.vocabulary.transfers.reach import Reach

_MIB: Final = 1 << 20
#: A segment is in a file on this machine until it is sent, up to three for each stream.
_LARGEST_SEGMENT: Final = 32 * _MIB


class SwiftTree(Plain):
    """Keeps ``base.Tree``."""

    traits = Traits(appends=True, renames=False, folders=False, times=True, checksums=("md5",))

    def __init__(self, reach: Reach) -> None:
        self._access = Access(reach)
        self._segment_bytes = min(_LARGEST_SEGMENT, settings.GANTRY_SWIFT_SEGMENT_MB * _MIB)
        self.default_path = clean(os.fsencode(reach.default_path))

    # --- what is there -----------------------------------------------------------------------------------

    def stat(self, path: bytes) -> Entry:
        path = clean(path)
        if path == b"/":
            self._container()
            return listing.folder_entry(b"")
        with self._access.connection() as connection:
            found = copying.head(connection, self._access.container, self._access.name(path))
        name = path.rpartition(b"/")[2]
        if found is not None:
            return listing.entry_of(name, found)
        if self._is_folder(path):
            return listing.folder_entry(name)
        raise self._missing(path)

    def scan(self, path: bytes) -> Iterator[Entry]:
        path = clean(path)
        try:
            yield from listing.scan(self._access, path)
        except StorageFailed as error:
            if error.trouble is Trouble.MISSING and not self.stat(path).is_folder:
                raise StorageFailed(f"{shown(path)} is a file", Trouble.NOT_FOLDER) from None
            if error.trouble is Trouble.MISSING and path != b"/":
                return  # a folder that is marked without a slash
            raise

    @contextmanager
    def read(self, path: bytes, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        path = clean(path)
        with self._access.connection() as connection:
            name = self._access.name(path)
            try:
                content = reading(connection, self._access.container, name, offset, version)
                with content as pieces:
                    yield pieces
            except StorageFailed as error:
                if error.trouble is Trouble.MISSING:
                    raise self._missing(path) from None
                raise

    def checksum(self, path: bytes, algorithm: str) -> str:
        path = clean(path)
        with self._access.connection() as connection:
            found = copying.head(connection, self._access.container, self._access.name(path))
        if found is None:
            raise self._missing(path)
        kept = found.get(listing.MD5.lower(), "") if is_segmented(found) else ""
        return (kept or checksum_of(found)) if algorithm == "md5" else ""

    def free_space(self, path: bytes) -> int | None:
        """What the container's quota leaves."""
        path = clean(path)
        head = self._container()
        try:
            quota = int(head["x-container-meta-quota-bytes"])
        except (KeyError, ValueError):
            return None
        return max(0, quota - int(head.get("x-container-bytes-used", 0)))

    # --- files -------------------------------------------------------------------------------------------

    def receive(self, path: bytes, part: Part, size: int) -> SwiftReceiving:
        return SwiftReceiving(self._access, inside(path), part, size, self._segment_bytes)

    def discard(self, path: bytes, part: Part) -> None:
        attempts = {part.attempt, part.attempt if part.before is None else part.before}
        name = self._access.name(inside(path))
        with self._access.connection() as connection:
            copying.discard(connection, self._access.container, name, part.tag, attempts)

    def copy_here(
        self,
        source: Tree,
        path: bytes,
        receiving: object,
        moved: Callable[[int], None],
        options: TransferOptions,
    ) -> bool:
        """Segment by segment; what is one request passes through us as quickly."""
        if not isinstance(source, SwiftTree) or not isinstance(receiving, SwiftReceiving):
            return False
        theirs, ours = source._access, self._access
        if theirs.store != ours.store or receiving.size <= self._segment_bytes:
            return False
        receiving.claim()
        with ours.connection() as connection:
            name = theirs.name(clean(path))
            found = copying.head(connection, theirs.container, name)
            if found is None:
                raise source._missing(path)
            made = copying.copied_segments(
                connection,
                f"{theirs.container}/{name}",
                found,
                ours.container,
                receiving.name,
                receiving.mark,
                moved,
            )
        if made is None:
            return False
        receiving.adopt(made)
        return True

    def remove(self, path: bytes) -> None:
        path = inside(path)
        container, name = self._access.container, self._access.name(path)
        with self._access.connection() as connection:
            found = copying.head(connection, container, name)
            if found is not None and not listing.entry_of(b"", found).is_folder:
                copying.removed(connection, container, name, found)
                return
        if found is not None or self._is_folder(path):
            raise StorageFailed(f"{shown(path)} is a folder", Trouble.IS_FOLDER)
        raise self._missing(path)

    # --- folders, names ----------------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int | None = None) -> None:
        path = inside(path)
        self._refuse(path, overwrite=False)
        with self._access.connection() as connection:
            self._mark(connection, self._access.folder(path))

    def remove_folder(self, path: bytes) -> None:
        path = inside(path)
        if not self.stat(path).is_folder:
            raise StorageFailed(f"{shown(path)} is a file", Trouble.NOT_FOLDER)
        marker = self._access.folder(path)
        if listing.holds(self._access, marker, beside=marker):
            raise StorageFailed(f"{shown(path)} is not empty", Trouble.NOT_EMPTY)
        container = self._access.container
        with self._access.connection() as connection:
            objects.delete(connection, [f"{container}/{marker}", f"{container}/{marker.removesuffix('/')}"])

    def rename(self, source: bytes, target: bytes, *, overwrite: bool = False) -> None:
        """Copies all that is there, then removes it: what ends in between has both."""
        source, target = inside(source), inside(target)
        moving = self.stat(source)
        self._refuse(target, overwrite and not moving.is_folder)
        old, new = self._access.name(source), self._access.name(target)
        mark = f"rename-{secrets.token_hex(8)}"
        if not moving.is_folder:
            with self._access.connection() as connection:
                copying.moved(connection, self._access.container, old, new, mark)
        elif target.startswith(source + b"/"):
            raise StorageFailed(f"{shown(source)} cannot be moved into itself", Trouble.OTHER)
        else:
            self._rename_folder(old, new, mark)

    def close(self) -> None:
        self._access.close()

    # --- parts -------------------------------------------------------------------------------------------

    def _rename_folder(self, old: str, new: str, mark: str) -> None:
        container, count = self._access.container, 0
        with self._access.connection() as asking, self._access.connection() as doing:
            for each in objects.entries(asking, container, f"{old}/"):
                name = str(each["name"])
                copying.copied(doing, container, name, f"{new}/{name.removeprefix(f'{old}/')}", mark)
                count += 1
            if not count:
                self._mark(doing, f"{new}/")
            for each in objects.entries(asking, container, f"{old}/"):
                copying.removed(doing, container, str(each["name"]))
            objects.delete(doing, [f"{container}/{old}"])  # a marker without a slash

    def _mark(self, connection: Connection, name: str) -> None:
        connection.call(
            put_object,
            self._access.container,
            name,
            what=f"{self._access.container}/{name}",
            contents=b"",
            content_length=0,
            content_type=listing.FOLDER,
        )

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

    def _is_folder(self, path: bytes) -> bool:
        return listing.holds(self._access, self._access.folder(path))

    def _container(self) -> dict[str, str]:
        """Its headers. Raises StorageFailed MISSING."""
        with self._access.connection() as connection:
            found: dict[str, str] = connection.call(
                head_container, self._access.container, what=f"container {self._access.container}"
            )
        return found

    def _missing(self, path: bytes) -> StorageFailed:
        return StorageFailed(f"{shown(path)}: there is no such object in Swift", Trouble.MISSING)
