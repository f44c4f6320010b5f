"""An object's content as a stream that is checked while it passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from typing import Any, Final

from swiftclient.client import get_object

from workers.storage.base import PIECE, StorageFailed, Trouble
from workers.storage.swift import listing
from workers.storage.swift.connection import Connection

_MD5: Final = re.compile(r"[0-9a-f]{32}")


def is_segmented(headers: dict[str, str]) -> bool:
    """A static large object, of segments that a manifest lists."""
    return headers.get("x-static-large-object", "").strip().lower() in ("true", "1", "yes", "t", "on", "y")


def etag_of(headers: dict[str, str]) -> str:
    return headers.get("etag", "").strip().strip('"')


def checksum_of(headers: dict[str, str]) -> str:
    """The MD5 of the whole content; empty where Swift has none."""
    etag = etag_of(headers).lower()
    plain = not is_segmented(headers) and "x-object-manifest" not in headers
    return etag if plain and _MD5.fullmatch(etag) else ""


class _Part:
    """Bytes in a row with a known MD5 ("" = unknown)."""

    def __init__(self, size: int, etag: str) -> None:
        self.left = size
        self.etag = etag
        self.digest = md5(usedforsecurity=False)


class Content:
    """The pieces of an answer. StorageFailed when they are too few or not the right ones."""

    def __init__(self, connection: Connection, body: Any, what: str, length: int, parts: list[_Part]) -> None:
        self._connection = connection
        self._body = body
        self._what = what
        self._length = length
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        """What has been checked too late is damaged at the next piece, or at the end."""
        # MD5 takes longer than all the rest: it is made of one piece while the next one comes.
        with ThreadPoolExecutor(1, thread_name_prefix="md5") as beside:
            checked: Future[None] | None = None
            for data in self._pieces():
                if checked is not None:
                    checked.result()
                checked = beside.submit(self._check, data)
                yield data
            if checked is not None:
                checked.result()

    def _pieces(self) -> Iterator[bytes]:
        come = 0
        while come < self._length:
            data: bytes = self._connection.read(self._next, self._what)
            self._connection.tick()
            come += len(data)
            if not data:
                raise StorageFailed(
                    f"{self._connection.server()}: the connection ended after {come} of {self._length} "
                    f"bytes: {self._what}",
                    Trouble.AWAY,
                )
            yield data

    def _next(self) -> bytes:
        data: bytes = self._body.read(PIECE)
        return data

    def _check(self, data: bytes) -> None:
        start = 0
        while self._parts and start < len(data):
            part = self._parts[0]
            size = min(part.left, len(data) - start)
            if part.etag:
                part.digest.update(data if size == len(data) else memoryview(data)[start : start + size])
            part.left -= size
            start += size
            if not part.left:
                del self._parts[0]
                if part.etag and part.digest.hexdigest() != part.etag:
                    raise StorageFailed(
                        f"{self._connection.server()}: what arrived of {self._what} is damaged: its MD5 is "
                        "not the one that Swift has",
                        Trouble.DAMAGED,
                    )


@contextmanager
def reading(
    connection: Connection, container: str, name: str, offset: int, version: str
) -> Iterator[Iterator[bytes]]:
    """See ``Storage.read``. MISSING does not tell here what is missing."""
    what = f"{container}/{name}"
    sent = {"Range": f"bytes={offset}-"} if offset else {}
    if version:
        sent["If-Match"] = f'"{version}"'
    answer: dict[str, Any] = {}
    try:
        headers, body = connection.call(
            get_object, container, name, what=what, resp_chunk_size=PIECE, response_dict=answer, headers=sent
        )
    except StorageFailed as error:
        if error.status == 412 and version:
            raise _changed(connection, what) from None
        if error.status == 416 and answer.get("headers", {}).get("content-range") == f"bytes */{offset}":
            yield iter(())  # there is nothing after its end
            return
        if error.status == 416:
            raise _changed(connection, what) from None
        raise
    try:
        if version and etag_of(headers) != version:
            raise _changed(connection, what)
        whole = offset == 0 or answer["status"] != 206
        length = _length(connection, what, headers)
        parts = _parts(connection, container, name, headers, 0 if whole else offset, length)
        content = iter(Content(connection, body, what, length, parts))
        yield _without(content, offset) if whole and offset else content
    finally:
        body.close()


def _changed(connection: Connection, what: str) -> StorageFailed:
    return StorageFailed(f"{connection.server()}: {what} has changed meanwhile", Trouble.CHANGED)


def _length(connection: Connection, what: str, headers: dict[str, str]) -> int:
    try:
        return int(headers["content-length"])
    except (KeyError, ValueError):
        raise StorageFailed(
            f"{connection.server()} does not tell the size of {what}", Trouble.OTHER
        ) from None


def _parts(
    connection: Connection, container: str, name: str, headers: dict[str, str], offset: int, length: int
) -> list[_Part]:
    """What is checked on the way: the whole, or each segment that comes whole."""
    if checksum := checksum_of(headers):
        return [_Part(length, checksum)] if offset == 0 and length else []
    if not is_segmented(headers):
        return []
    found = listing.manifest(connection, container, name)
    if found.etag != etag_of(headers) or sum(each.size for each in found.segments) != offset + length:
        # Replaced since the answer began, or an ETag made by other rules: sizes only.
        return []
    parts: list[_Part] = []
    for each in found.segments:
        if offset >= each.size:
            offset -= each.size
        elif each.size:
            parts.append(_Part(each.size - offset, "" if offset else each.etag))
            offset = 0
    return parts


def _without(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """A server that ignores ranges sends what is there already once more."""
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))
