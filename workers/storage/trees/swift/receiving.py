"""A file that is written: one request at the end, or segments meanwhile and their manifest at the end."""

from __future__ import annotations

import tempfile
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5
from typing import IO, Final

from workers.storage.base import StorageFailed, Trouble, Upload
from workers.storage.swift import listing as objects
from workers.storage.swift import names, segments, writing
from workers.storage.swift.connection import Connection
from workers.storage.swift.listing import Segment
from workers.storage.swift.reading import is_segmented
from workers.storage.trees.base import Entry, Keeping, Part, shown
from workers.storage.trees.swift import copying
from workers.storage.trees.swift.access import NAME_MAX, Access
from workers.storage.trees.swift.listing import MD5, MTIME, is_marker, mtime_header

#: Segments that are sent at once, beside the one that is being filled.
_AT_ONCE: Final = 2
_MOST_SEGMENTS: Final = 1000
_NOTHING: Final = Keeping()


class _Stopped(Exception):
    """Nobody wants the segments any more."""


class SwiftReceiving:
    """A ``base.Receiving``."""

    def __init__(self, access: Access, path: bytes, part: Part, size: int, segment_bytes: int) -> None:
        """Begins: after it the segments of ``part.before`` are ours or gone."""
        self.path, self.size = path, size
        self._access = access
        self.name = access.name(path)
        self.mark = copying.mark_of(part.tag, part.attempt)
        if size > segment_bytes and len(names.segment(self.name, self.mark, 0).encode()) > NAME_MAX:
            raise StorageFailed(f"{shown(path)}: the names of its segments are too long", Trouble.NAME)
        self._tag, self._attempt = part.tag, part.attempt
        self._claimed = part.before is not None
        self.segments: list[Segment] = []
        if part.before is not None:
            before = copying.mark_of(part.tag, part.before)
            with access.connection() as connection:
                found = copying.taken_over(connection, access.container, self.name, before, self.mark)
                copying.claimed(connection, access.container, self.name, part.tag, part.attempt)
                if not part.resume or (size >= 0 and sum(each.size for each in found) > size):
                    objects.delete(connection, [each.path for each in found])
                    found = []
            self.segments = found
        self.held = sum(each.size for each in self.segments)
        self._sent = self.held
        left = max(0, size - self.held)
        most = max(1, _MOST_SEGMENTS - len(self.segments))
        self._segment_bytes = max(segment_bytes, -(-left // most))
        self._buffer: IO[bytes] = tempfile.TemporaryFile(prefix="gantry-")  # noqa: SIM115 closed by close
        self._filled = 0
        #: Of the whole content, where all of it has passed through us: each request with a part of it was
        #: answered with the MD5 of that part.
        self._digest = md5(usedforsecurity=False)
        self._md5 = ""
        self._adopted = False
        self._stop = threading.Event()
        self._sending: deque[tuple[Segment, Future[str]]] = deque()
        self._threads: ThreadPoolExecutor | None = None

    # --- the protocol ------------------------------------------------------------------------------------

    def send(self, piece: bytes) -> None:
        self._digest.update(piece)
        view = memoryview(piece)
        while view:
            if self._filled >= self._segment_bytes:
                self._put()
            room = self._segment_bytes - self._filled
            self._buffer.write(view[:room])
            self._filled += len(view[:room])
            self._sent += len(view[:room])
            view = view[room:]
        if self.size > self._filled >= self._segment_bytes:
            self._put()

    def finish(self) -> None:
        if self.size >= 0 and self._sent != self.size:
            raise StorageFailed(
                f"{shown(self.path)}: its source gave {self._sent} bytes instead of {self.size}: it has "
                f"changed while it was read",
                Trouble.DAMAGED,
            )
        if self._filled and (self.segments or self._sending):
            self._put()
        while self._sending:
            self._settle()
        self._buffer.flush()
        if not self.held and not self._adopted:
            self._md5 = self._digest.hexdigest()

    def checksum(self, algorithm: str) -> str:
        return self._md5 if algorithm == "md5" else ""

    def commit(self, *, overwrite: bool, keeping: Keeping = _NOTHING) -> Entry:
        headers = {
            writing.MARK: self.mark,
            "Content-Type": writing.content_type_of(self._upload(0), self.name),
        }
        if keeping.mtime_ns is not None:
            headers[MTIME] = mtime_header(keeping.mtime_ns)
        if self._md5 and self.segments:
            headers[MD5] = self._md5
        with self._access.connection() as connection:
            if copying.head(connection, self._access.container, f"{self.name}/") is not None:
                raise self._exists("a folder")
            left = self._left(connection)
            replaced = self._replaced(connection) if overwrite else ""
            if replaced:
                headers[writing.REPLACES] = replaced
            if not overwrite:
                headers["If-None-Match"] = "*"
            try:
                version = self._visible(connection, headers)
            except StorageFailed as error:
                if error.status == 412:
                    raise self._exists("a file") from None
                raise
            objects.delete(connection, left)
            if replaced:
                objects.delete_upload(connection, self._access.container, self.name, replaced)
        return Entry(
            name=self.path.rpartition(b"/")[2],
            mode=0o100644,
            size=self._sent,
            mtime_ns=keeping.mtime_ns or 0,
            version=version,
        )

    def discard(self) -> None:
        self._stop.set()
        self.close()
        with self._access.connection() as connection:
            copying.discard(connection, self._access.container, self.name, self._tag, [self._attempt])

    def close(self) -> None:
        """What is being sent may come to its end: the next attempt goes on after it."""
        if self._threads is not None:
            self._threads.shutdown()
        self._buffer.close()

    # --- parts -------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Say that this attempt leaves something. Raises StorageFailed CHANGED: a later one has begun."""
        if not self._claimed:
            container = self._access.container
            with self._access.connection() as connection:
                self._left(connection)
                copying.claimed(connection, container, self.name, self._tag, self._attempt)
            self._claimed = True

    def adopt(self, found: list[Segment]) -> None:
        """Segments that came by another way than ``send``."""
        self.segments, self._adopted = found, True
        self._sent = sum(each.size for each in found)

    def _left(self, connection: Connection) -> list[str]:
        """What this element has left behind beside our segments. Raises StorageFailed CHANGED where a later
        attempt has begun."""
        container = self._access.container
        claimant = copying.claimant(connection, container, self.name, self._tag)
        if claimant > self._attempt:
            raise self._gone()
        if not claimant:
            return []
        found = copying.left(connection, container, self.name, f"{self._tag}.")
        ours = {each.path for each in self.segments}
        return [each.path for _, each in found if each.path not in ours]

    def _replaced(self, connection: Connection) -> str:
        """The mark of another segmented object that is there. Raises StorageFailed EXISTS for a folder,
        CHANGED for the file of a later attempt."""
        before = copying.head(connection, self._access.container, self.name) or {}
        if is_marker(before.get("content-type", ""), int(before.get("content-length", 1))):
            raise self._exists("a folder")
        mark = before.get(writing.MARK.lower(), "")
        if copying.attempt_of(self._tag, mark) > self._attempt:
            raise self._gone()
        return mark if is_segmented(before) and mark != self.mark else ""

    def _gone(self) -> StorageFailed:
        return StorageFailed(
            f"{shown(self.path)}: a later attempt has taken over what this one has written", Trouble.CHANGED
        )

    def _visible(self, connection: Connection, headers: dict[str, str]) -> str:
        container = self._access.container
        if self.segments:
            upload = self._upload(self._sent)
            return segments.put_manifest(connection, container, self.name, upload, self.segments, headers)
        upload = self._upload(self._filled)
        return writing.put_whole(connection, container, self.name, upload, headers, self._md5)

    def _upload(self, size: int) -> Upload:
        return Upload(self._buffer.fileno(), size, self.mark)

    def _put(self) -> None:
        """Send what is in the buffer as the next segment, in another thread."""
        place = names.segments_of(self._access.container)
        self.claim()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="swift")
        if len(self._sending) >= _AT_ONCE:
            self._settle()
        name = names.segment(self.name, self.mark, len(self.segments) + len(self._sending))
        segment = Segment(f"{place}/{name}", self._filled, "")
        self._buffer.flush()
        self._sending.append(
            (segment, self._threads.submit(self._send, place, name, self._buffer, self._filled))
        )
        self._buffer = tempfile.TemporaryFile(prefix="gantry-")  # noqa: SIM115 closed by close
        self._filled = 0

    def _send(self, place: str, name: str, file: IO[bytes], size: int) -> str:
        connection = self._access.another(self._tick)
        try:
            upload = Upload(file.fileno(), size, self.mark)
            return segments.put_segment(connection, place, name, upload, 0, size, lambda count: self._tick())
        finally:
            connection.close()
            file.close()

    def _tick(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _settle(self) -> None:
        segment, sent = self._sending.popleft()
        self.segments.append(Segment(segment.path, segment.size, sent.result()))

    def _exists(self, what: str) -> StorageFailed:
        return StorageFailed(f"{shown(self.path)} is there already: {what}", Trouble.EXISTS)
