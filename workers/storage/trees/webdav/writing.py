"""A part that is written by one PUT.

A small file is kept until it is whole, and sent in one request. A larger one is sent while it comes, by a
thread that waits for the pieces: httpx asks for a request's body, nobody can hand it one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

from workers.storage.trees.base import StorageFailed, Trouble, shown

#: Bytes that are kept before a request begins.
SMALL: Final = 256 * 1024
_PIECES: Final = 4
_LOOK_S: Final = 0.2
#: Seconds that an ended upload gets to let go of its connection.
_LEAVE_S: Final = 5.0

#: Sends a body to the part: (content, its size or -1).
Put = Callable[[bytes | Iterator[bytes], int], None]


class _GivenUp(Exception):
    """Ends a request in its middle."""


class PutWriter:
    """A ``filling.Writer``. ``size`` -1: unknown. ``appears`` waits until a request is seen at the server."""

    def __init__(self, part: bytes, size: int, put: Put, appears: Callable[[], None]) -> None:
        self._appears = appears
        self._part = part
        self._size = size
        self._put = put
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._request: _Request | None = None

    def write(self, piece: bytes) -> None:
        if self._request is not None:
            self._request.feed(piece)
            return
        self._kept.append(bytes(piece))
        self._kept_size += len(piece)
        if self._kept_size > SMALL:
            self._request = _Request(self._part, self._size, self._put)
            kept, self._kept = self._kept, []
            for each in kept:
                self._request.feed(each)
            self._appears()

    def finish(self) -> None:
        if self._request is not None:
            self._request.end()
        else:
            self._put(b"".join(self._kept), self._kept_size)
            self._kept = []

    def close(self) -> None:
        self._kept = []
        if self._request is not None:
            self._request.leave()


class _Request:
    """A PUT in a thread of its own."""

    def __init__(self, part: bytes, size: int, put: Put) -> None:
        self._part = part
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES)
        self._left = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._send, args=(size, put), name="put", daemon=True)
        self._thread.start()

    def feed(self, piece: bytes | None) -> None:
        while True:
            if self._left.is_set() or not self._thread.is_alive():
                raise self._failure or StorageFailed(
                    f"{shown(self._part)}: the server took the upload for done before its end", Trouble.AWAY
                )
            try:
                self._pieces.put(piece, timeout=_LOOK_S)
            except queue.Full:
                continue
            return

    def end(self) -> None:
        self.feed(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def leave(self) -> None:
        self._left.set()
        self._thread.join(_LEAVE_S)

    def _send(self, size: int, put: Put) -> None:
        try:
            put(self._body(), size)
        except BaseException as error:  # noqa: BLE001 - it is raised to the thread that writes
            self._failure = error

    def _body(self) -> Iterator[bytes]:
        while True:
            if self._left.is_set():
                raise _GivenUp
            try:
                piece = self._pieces.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if piece is None:
                return
            yield piece
