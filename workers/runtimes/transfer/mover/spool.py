"""Names that wait for their turn, on disk: memory stays flat however many folders a tree has.

Files of the mover's own working folder, which is removed with the attempt.
"""

from __future__ import annotations

import marshal
import shutil
import tempfile
import threading
from array import array
from collections.abc import Iterator
from typing import IO, Final

#: So many folders wait in memory; half of them go to disk when there are more.
_WAITING: Final = 20_000
_BUFFER: Final = 1 << 20


class Waiting:
    """Folders that are still to be scanned, the last one first. One thread at a time."""

    def __init__(self, scratch: str, most: int = _WAITING) -> None:
        self._most = most
        self._here: list[tuple[bytes, bytes, int]] = []
        self._file = tempfile.SpooledTemporaryFile(1 << 20, dir=scratch)  # noqa: SIM115
        #: (offset, length) of what is on disk.
        self._chunks: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._here or self._chunks)

    def push(self, item: tuple[bytes, bytes, int]) -> None:
        self._here.append(item)
        if len(self._here) > self._most:
            half = len(self._here) // 2
            self._store(self._here[:half])
            del self._here[:half]

    def pop(self) -> tuple[bytes, bytes, int] | None:
        if not self._here and self._chunks:
            offset, length = self._chunks.pop()
            self._file.seek(offset)
            self._here = marshal.loads(self._file.read(length))  # noqa: S302 (written by us, a moment ago)
            self._file.truncate(offset)
        return self._here.pop() if self._here else None

    def close(self) -> None:
        self._file.close()

    def _store(self, items: list[tuple[bytes, bytes, int]]) -> None:
        data = marshal.dumps(items)
        offset = self._chunks[-1][0] + self._chunks[-1][1] if self._chunks else 0
        self._file.seek(offset)
        self._file.write(data)
        self._chunks.append((offset, len(data)))


class Told:
    """Lines of folders, told later in another order: 20 bytes of memory for each folder."""

    def __init__(self, scratch: str) -> None:
        self._file = tempfile.TemporaryFile(dir=scratch, buffering=_BUFFER)  # noqa: SIM115
        self._lock = threading.Lock()
        self._at = 0
        self._offsets = array("Q")
        self._sizes = array("Q")
        self._lengths = array("I")

    def add(self, lines: IO[bytes], size: int, length: int) -> None:
        """The lines of one folder, ``size`` bytes, whose path has ``length`` bytes."""
        with self._lock:
            shutil.copyfileobj(lines, self._file, _BUFFER)
            self._offsets.append(self._at)
            self._sizes.append(size)
            self._lengths.append(length)
            self._at += size

    def in_order(self, *, longest_first: bool) -> Iterator[bytes]:
        """Folders by the length of their paths, then as they came; in pieces of some bytes."""
        self._file.flush()
        turns = sorted(range(len(self._lengths)), key=self._lengths.__getitem__, reverse=longest_first)
        for turn in turns:
            self._file.seek(self._offsets[turn])
            left = self._sizes[turn]
            while left:
                piece = self._file.read(min(left, _BUFFER))
                left -= len(piece)
                yield piece

    def close(self) -> None:
        self._file.close()
