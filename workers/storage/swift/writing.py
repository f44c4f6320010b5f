"""An upload as one object: sent with the MD5 that it must have, visible when its last byte has come.

Swift itself refuses (422) what was damaged on the way, and what was there before stays.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from typing import Any, Final

from swiftclient.client import put_object

from workers.storage.base import PIECE, StorageFailed, Trouble, Upload
from workers.storage.swift.connection import Connection

MARK: Final = "X-Object-Meta-Gantry-Mark"
#: The mark of the object that was replaced: its segments are ours to remove, also when we died before that.
REPLACES: Final = "X-Object-Meta-Gantry-Replaces"


class Body:
    """Bytes ``start`` to ``start + size`` of the file, as swiftclient reads them, with their MD5.

    ``last`` is called before the last piece is handed out.
    """

    def __init__(
        self,
        upload: Upload,
        start: int,
        size: int,
        moved: Callable[[int], None],
        last: Callable[[], None] = lambda: None,
        *,
        hashed: bool = True,
    ) -> None:
        self._file = upload.file
        self._at, self._end = start, start + size
        self._moved = moved
        self._last = last
        self._hashed = hashed
        self._digest = md5(usedforsecurity=False)
        self._buffer = memoryview(bytearray(min(PIECE, max(size, 1))))

    @property
    def etag(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int) -> memoryview:
        """The next bytes; they are only there until the next call."""
        wanted = min(size, len(self._buffer), self._end - self._at)
        count = os.preadv(self._file, [self._buffer[:wanted]], self._at) if wanted else 0
        if wanted and not count:
            raise StorageFailed("the file has become shorter while it was stored", Trouble.OTHER)
        self._at += count
        if count and self._at >= self._end:
            self._last()
        piece = self._buffer[:count]
        if self._hashed:
            self._digest.update(piece)
        self._moved(count)
        return piece


def digest(upload: Upload, start: int, size: int, tick: Callable[[], None]) -> str:
    """The MD5 of a part of the file."""
    body = Body(upload, start, size, lambda count: tick())
    while body.read(PIECE):
        pass
    return body.etag


@dataclass
class Progress:
    """Tells of each byte once, whatever is sent twice."""

    tell: Callable[[int], None]
    at: int = 0
    told: int = 0

    def moved(self, count: int) -> None:
        self.at += count
        if self.at > self.told:
            self.tell(self.at - self.told)
            self.told = self.at

    def again(self) -> None:
        self.at = 0


def content_type_of(upload: Upload, name: str) -> str:
    """As given, else guessed from the name."""
    given = upload.content_type
    if given and given.isascii() and given.isprintable():
        return given
    kind, coding = mimetypes.guess_type(name.rpartition("/")[2], strict=False)
    # x.txt.gz is a gzip file and no text; Content-Encoding would make readers unpack it unasked.
    if coding:
        return f"application/{coding}" if coding in ("gzip", "zstd") else f"application/x-{coding}"
    return kind or "application/octet-stream"


def put_whole(
    connection: Connection,
    container: str,
    name: str,
    upload: Upload,
    headers: dict[str, str],
    etag: str = "",
) -> str:
    """One request; returns the ETag, the MD5 of the file, which is made here where it is not given."""
    what = f"{container}/{name}"
    etag = etag or digest(upload, 0, upload.size, connection.tick)
    progress = Progress(upload.moved)

    def commit() -> None:
        connection.tick.guarded(upload.commit)

    def put(url: str, token: str, *arguments: Any, **named: Any) -> str:
        progress.again()
        if upload.size:
            contents: Any = Body(upload, 0, upload.size, progress.moved, commit, hashed=False)
        else:
            contents = b""
            commit()
        found: str = put_object(
            url, token, *arguments, contents=contents, content_length=upload.size, etag=etag, **named
        )
        return found

    answer = connection.call(put, container, name, what=what, headers=headers)
    if answer.strip('"') != etag:
        raise StorageFailed(
            f"{connection.server()} has stored something else than was sent: {what}", Trouble.DAMAGED
        )
    return etag
