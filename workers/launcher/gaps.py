"""Output that found no space: its bytes are counted, and a line stands where they are missing.

The line is written as soon as there is space for it, before anything that comes later. One that never found
space is handed on with the record of the end, and whoever reads the file puts it behind the last byte.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

_ROOM = 64 * 1024  # bytes beside the line that must be free: else a nearly full disk is filled with lines


class Gap:
    """What is missing of one file, which has one writer; ``file`` is open for writing at its end."""

    __slots__ = ("_file", "_here", "_rest", "_told")

    def __init__(self, file: int) -> None:
        self._file = file
        self._told = 0  # bytes that lines tell of
        self._here = 0  # bytes that are missing at the end of the file now
        self._rest = b""  # of a line for which there was space in part

    @property
    def missing(self) -> int:
        """Bytes in all."""
        return self._told + self._here

    @property
    def untold(self) -> str:
        """What is still to be written at the file's end; empty when there is nothing."""
        return (self._rest + (line(self._here) if self._here else b"")).decode()

    def add(self, count: int) -> None:
        """So many bytes more are missing at the end of the file."""
        self._here += count

    def tell(self, *, last: bool = False) -> bool:
        """Write what is untold if there is space; `last`: for nothing but that. True when nothing is left."""
        if self._here and not self._rest:
            told = line(self._here)
            try:
                kernel.reserve(self._file, os.fstat(self._file).st_size, len(told) + (0 if last else _ROOM))
            except OSError as error:
                if error.errno not in kernel.UNSUPPORTED:
                    return False
            self._rest, self._told, self._here = told, self._told + self._here, 0
        with contextlib.suppress(OSError):
            while self._rest:
                self._rest = self._rest[os.write(self._file, self._rest) :]
        return not self._rest and not self._here

    def record(self) -> Record:
        """For the record of the end: {"missing", "untold"}, empty when the file is whole."""
        return {"missing": self.missing, "untold": self.untold} if self.missing else {}


def line(missing: int) -> bytes:
    """What stands in the place of so many bytes."""
    return f"\n[{missing} bytes of output are missing here: there was no space for them]\n".encode()
