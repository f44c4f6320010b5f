"""The cap of a run's output files: the head and the tail are kept, the middle is given back to the disk.

The command writes straight into the file, so the cap works afterwards: the file keeps its logical size, and
a hole takes the middle. `holes` is written before a hole is made: who reads bytes and then looks at `holes`
knows which of them were real. The command is never stopped for what it writes. Standard library only.
"""

from __future__ import annotations

import errno
import os

from . import control, kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

QUIET = 1.0  # seconds between looks at files that do not grow
BUSY = 0.1  # and at files that do
_BUSY_BYTES = 256 * 1024  # growth between two looks that counts as busy
_LEAST_SLACK = 64 * 1024  # bytes over the cap before a hole is worth it


class Output:
    """Both output files of a run, held open by the shim."""

    def __init__(
        self, folder: int, files: list[int], head: int | None, tail: int | None, whole: tuple[str, ...] = ()
    ) -> None:
        self.files = files
        self.interval = BUSY
        self.uncapped = head is None and tail is None
        self.unsupported = False
        self.rewound = False
        self._folder = folder
        self._whole = [stream in whole for stream in control.STREAMS]
        self._head = head or 0
        self._tail = tail or 0
        self._slack = max(_LEAST_SLACK, self._tail // 4)
        self._sizes = [0] * len(files)
        self._holes: list[tuple[int, int] | None] = [None] * len(files)

    def look(self) -> None:
        """Note the growth, punch what is over the cap, choose when to look again."""
        grown = 0
        for index, file in enumerate(self.files):
            size = os.fstat(file).st_size
            if size < self._sizes[index]:
                self.rewound = True  # the command itself truncated it, for example by `> /dev/stdout`
                self._holes[index] = None
                control.write_record("holes", self.holes(), self._folder)
            grown = max(grown, size - self._sizes[index])
            self._sizes[index] = size
            self._cap(index, size)
        self.interval = BUSY if grown >= _BUSY_BYTES else min(QUIET, self.interval * 2)

    def _cap(self, index: int, size: int) -> None:
        if self.uncapped or self.unsupported or self._whole[index]:
            return
        hole = self._holes[index]
        start = hole[0] if hole else self._head
        done = hole[1] if hole else self._head
        end = size - self._tail
        if end - done <= self._slack:
            return
        before = list(self._holes)
        self._holes[index] = (start, end)
        try:
            control.write_record("holes", self.holes(), self._folder)
            kernel.punch_hole(self.files[index], done, end)
        except OSError as error:
            self._holes = before
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM):
                self.unsupported = True
                control.write_record("holes", self.holes(), self._folder)

    def holes(self) -> Record:
        """{stream: [first dropped byte, first kept byte after it] or null}."""
        return {
            stream: list(hole) if hole else None
            for stream, hole in zip(control.STREAMS, self._holes, strict=True)
        }

    def summary(self) -> Record:
        """What `exit` says about the output: sizes, holes, and anything unusual."""
        self.look()
        holes = self.holes()
        record: Record = {
            stream: {"bytes": size, "hole": holes[stream]}
            for stream, size in zip(control.STREAMS, self._sizes, strict=True)
        }
        if self.unsupported:
            record["uncapped"] = True
        if self.rewound:
            record["rewound"] = True
        return record
