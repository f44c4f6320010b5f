"""The storage of a user of a Swift."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from django.conf import settings
from swiftclient.client import delete_object, head_account, head_container, head_object

from workers.addresses import system_resolver
from workers.addresses.http import Resolver
from workers.storage.base import Stat, StorageFailed, Trouble, Upload
from workers.storage.swift import listing, names, segments, writing
from workers.storage.swift.connection import Account, Connection
from workers.storage.swift.reading import checksum_of, etag_of, is_segmented, reading
from workers.vocabulary.staging import Store

_MIB: Final = 1024 * 1024
#: Seconds without a byte in either direction; a manifest of a thousand segments takes Swift a while.
STALL_S: Final = 60.0
#: For a check that is made while a client waits.
CHECK_S: Final = 10.0


def _nothing() -> None:
    pass


class SwiftStorage:
    """Keeps ``workers.storage.base.Storage``; larger files than ``segment_bytes`` get segments of it."""

    def __init__(
        self,
        store: Store,
        tick: Callable[[], None] = _nothing,
        *,
        resolver: Resolver = system_resolver,
        segment_bytes: int | None = None,
        total_s: float = math.inf,
        stall_s: float = STALL_S,
    ) -> None:
        self._segment_bytes = segment_bytes or settings.GANTRY_SWIFT_SEGMENT_MB * _MIB
        self._connection = Connection(Account(store), tick, resolver, total_s, stall_s)

    def close(self) -> None:
        self._connection.close()

    def check(self, container: str = "") -> None:
        """Are the credentials good, and is the container there (and ours to look at)? StorageFailed tells."""
        if container:
            self._connection.call(head_container, container, what=f"container {container}")
            return
        try:
            self._connection.call(head_account, what="the account")
        except StorageFailed as error:
            # Who may use containers that others have shared may not see the account: the key was good.
            if error.status != 403:
                raise

    def stat(self, path: str) -> Stat:
        container, name = names.split(path)
        with self._missing(container):
            return _stat(self._head(container, name))

    @contextmanager
    def read(self, path: str, *, offset: int = 0, version: str = "") -> Iterator[Iterator[bytes]]:
        container, name = names.split(path)
        with self._missing(container), reading(self._connection, container, name, offset, version) as content:
            yield content

    def store(self, path: str, upload: Upload) -> Stat:
        container, name = names.split(path)
        before = self._before(container, name, upload)
        if before is not None:
            self._forget(container, name, before)  # who stored it may have died before that
        if before is not None and _stat(before).mark == upload.mark:
            upload.moved(upload.size)
            return _stat(before)
        segmented = upload.size > self._segment_bytes
        sent: list[listing.Segment] = []
        if segmented:
            if upload.make_container or not self._there(names.segments_of(container)):
                listing.make_container(self._connection, names.segments_of(container))
            sent = segments.put_segments(self._connection, container, name, upload, self._segment_bytes)
            before = self._before(container, name, upload)  # that took its time
        headers = {
            "Content-Type": writing.content_type_of(upload, name),
            writing.MARK: upload.mark,
        }
        if before is not None and is_segmented(before) and _stat(before).mark:
            headers[writing.REPLACES] = _stat(before).mark
        if segmented:
            segments.put_manifest(self._connection, container, name, upload, sent, headers)
        else:
            writing.put_whole(self._connection, container, name, upload, headers)
        after = self._head(container, name)
        self._forget(container, name, after)
        return _stat(after)

    def discard(self, path: str, mark_prefix: str) -> None:
        container, name = names.split(path)
        try:
            keep = _stat(self._head(container, name)).mark
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            keep = ""
        place = names.segments_of(container)
        found = listing.listed(self._connection, place, names.folder(name, mark_prefix))
        marks = [(each.path, names.mark_of(name, each.path.partition("/")[2])) for each in found]
        # Of the file that is there now the segments are its content.
        listing.delete(self._connection, [path for path, mark in marks if mark and mark != keep])

    def remove(self, path: str) -> None:
        container, name = names.split(path)
        with self._missing(container):
            head = self._head(container, name)
            self._connection.call(delete_object, container, name, what=path)
        self._forget(container, name, head)
        if is_segmented(head) and (mark := _stat(head).mark):
            listing.delete_upload(self._connection, container, name, mark)

    # --- parts -------------------------------------------------------------------------------------------

    def _head(self, container: str, name: str) -> dict[str, str]:
        found: dict[str, str] = self._connection.call(
            head_object, container, name, what=f"{container}/{name}"
        )
        return found

    def _before(self, container: str, name: str, upload: Upload) -> dict[str, str] | None:
        """What stands there; None when it is nothing, and the container is there or has been made."""
        try:
            return self._head(container, name)
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
        if upload.make_container:
            if not self._there(container):
                listing.make_container(self._connection, container)
        else:
            self.check(container)
        return None

    def _there(self, container: str) -> bool:
        try:
            self.check(container)
        except StorageFailed as error:
            if error.trouble is not Trouble.MISSING:
                raise
            return False
        return True

    def _forget(self, container: str, name: str, head: dict[str, str]) -> None:
        """Remove the segments of what this object has replaced."""
        replaced = head.get(writing.REPLACES.lower(), "")
        if replaced and replaced != _stat(head).mark:
            listing.delete_upload(self._connection, container, name, replaced)

    @contextmanager
    def _missing(self, container: str) -> Iterator[None]:
        """Names the container where it is that which is missing."""
        try:
            yield
        except StorageFailed as error:
            if error.trouble is Trouble.MISSING:
                self.check(container)
            raise


def _stat(headers: dict[str, str]) -> Stat:
    checksum = checksum_of(headers)
    return Stat(
        size=int(headers.get("content-length", 0)),
        checksum=f"md5:{checksum}" if checksum else "",
        version=etag_of(headers),
        content_type=headers.get("content-type", ""),
        mark=headers.get(writing.MARK.lower(), ""),
    )


def check(
    store: Store,
    container: str = "",
    *,
    tick: Callable[[], None] = _nothing,
    resolver: Resolver = system_resolver,
) -> None:
    """Do the credentials open this storage, and is the container there? Ten seconds at most.

    Raises StorageFailed: DENIED, REFUSED (the guard), MISSING (the container), AWAY.
    """
    storage = SwiftStorage(store, tick, resolver=resolver, segment_bytes=_MIB, total_s=CHECK_S)
    try:
        storage.check(container)
    finally:
        storage.close()
