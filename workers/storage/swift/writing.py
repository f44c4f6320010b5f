"""An upload: one object, or segments and a manifest; visible by its last step only, found again by its mark.

One object is sent with the MD5 that it must have, so that Swift itself refuses (422) what was damaged on the
way, and what was there before stays. Of segments the MD5 is made while they are sent and compared with the
answer; the manifest names each with MD5 and size, which Swift compares again.
"""

from __future__ import annotations

import json
import mimetypes
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, Final

from swiftclient.client import put_object
from swiftclient.exceptions import ClientException

from workers.storage.base import PIECE, StorageFailed, Trouble, Upload
from workers.storage.swift import listing, names
from workers.storage.swift.connection import Connection

MARK: Final = "X-Object-Meta-Gantry-Mark"
#: The mark of the object that was replaced: its segments are ours to remove, also when we died before that.
REPLACES: Final = "X-Object-Meta-Gantry-Replaces"
#: Segments that are sent at once.
AT_ONCE: Final = 2
#: Swift takes no more in a manifest unless an operator allows it, and no larger objects.
_MOST_SEGMENTS: Final = 1000
_LARGEST: Final = 5 * 1024**3
#: What Swift says of segments in a manifest that are gone or others.
_NOT_THERE: Final = re.compile(rb"404 Not Found|(Etag|Size) Mismatch", re.IGNORECASE)
#: Seconds between two looks at the threads that send.
_LOOK_S: Final = 0.2


class _Stopped(Exception):
    """Another segment has failed, or nobody wants the upload any more."""


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


def _digest(upload: Upload, start: int, size: int, tick: Callable[[], None]) -> str:
    """The MD5 of a part of the file."""
    body = Body(upload, start, size, lambda count: tick())
    while body.read(PIECE):
        pass
    return body.etag


@dataclass
class _Progress:
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
    connection: Connection, container: str, name: str, upload: Upload, headers: dict[str, str]
) -> str:
    """One request; returns the ETag."""
    what = f"{container}/{name}"
    etag = _digest(upload, 0, upload.size, connection.tick)
    progress = _Progress(upload.moved)

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


@dataclass
class _Work:
    """What the threads of one upload share."""

    segments: Iterator[tuple[int, int, int]]
    there: dict[str, listing.Segment]
    etags: dict[int, str] = field(default_factory=dict)
    moved: int = 0
    failed: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def tick(self) -> None:
        if self.stop.is_set():
            raise _Stopped

    def count(self, size: int) -> None:
        with self.lock:
            self.moved += size


def put_segments(
    connection: Connection, container: str, name: str, upload: Upload, segment_bytes: int
) -> list[listing.Segment]:
    """Send what is not there yet; the segments in their order."""
    size = min(max(segment_bytes, -(-upload.size // _MOST_SEGMENTS)), _LARGEST)
    starts = range(0, upload.size, size)
    place = names.segments_of(container)
    prefix = names.folder(name, upload.mark) + "/"
    work = _Work(
        iter([(number, start, min(size, upload.size - start)) for number, start in enumerate(starts)]),
        {each.path: each for each in listing.listed(connection, place, prefix)},
    )

    def send(mine: Connection) -> None:
        try:
            while True:
                with work.lock:
                    segment = next(work.segments, None)
                if segment is None or work.stop.is_set():
                    return
                number, start, length = segment
                etag = _put_segment(
                    mine, place, names.segment(name, upload.mark, number), upload, start, length, work
                )
                with work.lock:
                    work.etags[number] = etag
        except BaseException as error:  # noqa: BLE001 handed to the thread that waits
            with work.lock:
                work.failed = work.failed or error
            work.stop.set()
        finally:
            mine.close()

    threads = [
        threading.Thread(target=send, args=(connection.beside(work.tick),), name="swift", daemon=True)
        for _ in range(min(AT_ONCE, len(starts)))
    ]
    _run(threads, work, upload, connection.tick)
    return [
        listing.Segment(
            f"{place}/{names.segment(name, upload.mark, number)}",
            min(size, upload.size - start),
            work.etags[number],
        )
        for number, start in enumerate(starts)
    ]


def _run(threads: list[threading.Thread], work: _Work, upload: Upload, tick: Callable[[], None]) -> None:
    told = 0

    def tell() -> None:
        nonlocal told
        with work.lock:
            more, told = work.moved - told, work.moved
        if more:
            upload.moved(more)

    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_LOOK_S)
            tell()
            tick()
    finally:
        work.stop.set()
        for thread in threads:
            thread.join()
    if work.failed is not None:
        raise work.failed
    tell()


def _put_segment(
    connection: Connection, place: str, segment: str, upload: Upload, start: int, size: int, work: _Work
) -> str:
    what = f"{place}/{segment}"
    there = work.there.get(what)
    if there is not None and there.size == size and there.etag == _digest(upload, start, size, work.tick):
        work.count(size)
        return there.etag
    bodies: list[Body] = []
    progress = _Progress(work.count)

    def put(url: str, token: str, *arguments: Any, **named: Any) -> str:
        progress.again()
        bodies.append(Body(upload, start, size, progress.moved))
        found: str = put_object(
            url, token, *arguments, contents=bodies[-1], content_length=size, content_type=_SEGMENT, **named
        )
        return found

    answer: str = connection.call(put, place, segment, what=what)
    if answer.strip('"') != bodies[-1].etag:
        listing.delete(connection, [what])
        raise StorageFailed(
            f"{connection.server()}: {what} was damaged on its way: its MD5 is not that of what was sent",
            Trouble.DAMAGED,
        )
    return bodies[-1].etag


_SEGMENT: Final = "application/octet-stream"


def put_manifest(
    connection: Connection,
    container: str,
    name: str,
    upload: Upload,
    segments: list[listing.Segment],
    headers: dict[str, str],
) -> str:
    """Make them one object; returns its ETag."""
    what = f"{container}/{name}"
    entries = [{"path": f"/{each.path}", "etag": each.etag, "size_bytes": each.size} for each in segments]
    text = json.dumps(entries).encode()
    expected = md5("".join(each.etag for each in segments).encode(), usedforsecurity=False).hexdigest()

    def put(url: str, token: str, *arguments: Any, **named: Any) -> str:
        try:
            found: str = put_object(
                url,
                token,
                *arguments,
                contents=text,
                content_length=len(text),
                query_string="multipart-manifest=put",
                **named,
            )
            return found
        except ClientException as error:
            if error.http_status == 400 and _NOT_THERE.search(error.http_response_content or b""):
                raise StorageFailed(
                    f"{connection.server()} said 400: not all segments of {what} are what was sent",
                    Trouble.DAMAGED,
                    status=400,
                ) from None
            raise

    upload.commit()
    answer = connection.call(put, container, name, what=what, headers=headers)
    if answer.strip('"') != expected:
        raise StorageFailed(
            f"{connection.server()} has stored something else than was sent: {what}", Trouble.DAMAGED
        )
    return expected
