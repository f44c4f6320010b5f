"""Reading and writing with several requests under way, so that no round trip is waited for between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, Final

from workers.storage.base import StorageFailed
from workers.storage.trees.xrootd.client import (
    REQUEST_S,
    Asked,
    Server,
    asked,
    open_files,
    set_property,
    xrootd,
)

#: Bytes of one request, and how many are under way: 8 MiB of a file are in memory.
_CHUNK: Final = 1 << 20
_AHEAD: Final = 8


def opened(server: Server, path: bytes, text: str, flags: int, mode: int = 0) -> Any:
    """An open file. Raises StorageFailed."""
    file = xrootd.File()
    # It would open the file again by itself, whatever that is by then.
    set_property(file, "ReadRecovery", "false")
    set_property(file, "WriteRecovery", "false")
    server.told(path, file.open(server.url(text), flags, mode, timeout=REQUEST_S))
    open_files.add(file)
    return file


def pieces(server: Server, path: bytes, file: Any, start: int, end: int) -> Generator[bytes, None, None]:
    """From ``start`` to ``end``; less where the file has become shorter."""
    under_way: deque[Asked] = deque()
    asked_for = start
    try:
        while True:
            while asked_for < end and len(under_way) < _AHEAD:
                size = min(_CHUNK, end - asked_for)
                under_way.append(asked(file.read, asked_for, size))
                asked_for += size
            if not under_way:
                return
            wanted = min(_CHUNK, end - start)
            data: bytes = server.result(path, under_way.popleft())
            if data:
                yield data
            start += len(data)
            if len(data) < wanted:
                return
    finally:
        _settle(server, path, under_way)


class Writing:
    """A ``filling.Writer``: bytes from ``offset`` on into an open file."""

    def __init__(self, server: Server, path: bytes, file: Any, offset: int) -> None:
        self._server = server
        self._path = path
        self._file = file
        self._at = offset
        self._under_way: deque[Asked] = deque()
        self._open = True

    def write(self, piece: bytes) -> None:
        if not piece:
            return
        if len(self._under_way) >= _AHEAD:
            self._server.result(self._path, self._under_way.popleft())
        # Read later, by threads of the library: it must be what it is now.
        self._under_way.append(asked(self._file.write, bytes(piece), self._at, len(piece)))
        self._at += len(piece)

    def finish(self) -> None:
        while self._under_way:
            self._server.result(self._path, self._under_way.popleft())
        self._server.told(self._path, self._file.sync(timeout=REQUEST_S))
        self._open = False
        self._server.told(self._path, self._file.close(timeout=REQUEST_S))

    def close(self) -> None:
        if self._open:
            self._open = False
            _settle(self._server, self._path, self._under_way)
            self._file.close(timeout=REQUEST_S)


def _settle(server: Server, path: bytes, under_way: deque[Asked]) -> None:
    """Wait for what nobody wants any more: the file must not be closed before."""
    while under_way:
        try:
            server.result(path, under_way.popleft())
        except StorageFailed:
            continue
