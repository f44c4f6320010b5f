"""An upload in segments, some of them at once, and the manifest that makes them one object.

Nobody sees a segment before the manifest names it: its MD5 is made while it is sent and compared with the
answer. The manifest names each with MD5 and size, which Swift compares again.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, Final

from swiftclient.client import put_object
from swiftclient.exceptions import ClientException

from workers.storage.base import StorageFailed, Trouble, Upload
from workers.storage.swift import listing, names
from workers.storage.swift.connection import Connection
from workers.storage.swift.writing import Body, Progress, digest

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
    if there is not None and there.size == size and there.etag == digest(upload, start, size, work.tick):
        work.count(size)
        return there.etag
    return put_segment(connection, place, segment, upload, start, size, work.count)


def put_segment(
    connection: Connection,
    place: str,
    segment: str,
    upload: Upload,
    start: int,
    size: int,
    count: Callable[[int], None],
) -> str:
    """Send ``size`` bytes of the file from ``start`` on; returns their MD5, which is that of what arrived."""
    what = f"{place}/{segment}"
    bodies: list[Body] = []
    progress = Progress(count)

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
            said = error.http_response_content or b""
            if error.http_status == 400 and b"401 Unauthorized" in said:
                # The token is refused: Keystone's middleware leaves the verdict to what comes after it, and
                # here that is the look at each segment.
                error.http_status = 401
            elif error.http_status == 400 and _NOT_THERE.search(said):
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
