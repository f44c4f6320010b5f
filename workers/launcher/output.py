"""A run's output: carried from the pipes that its processes write to into files, and capped there.

Pipes, since whoever has a file as its stdout can empty, seek and read it (`> /dev/stderr` does). Nothing
is copied through this process (splice), and it sleeps while nothing comes. What finds no space is taken all
the same and counted (gaps.py): a command is never stopped or held up for what it writes.

The head and the tail are kept, the middle is given back to the disk: the file keeps its logical size, and a
hole takes the middle. `holes` is written before a hole is made: who reads bytes and then looks at `holes`
knows which of them were real. A stream that is kept whole has no pipe. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time

from . import control, kernel
from .gaps import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from .control import Record
    from .handover import Handed

_LEAST_SLACK = 64 * 1024  # bytes over the cap before a hole is worth it
_PIECE = 64 * 1024  # bytes taken at once: what a pipe holds unless its writer made it larger
_TURNS = 16  # pieces of one stream until signals and the other stream are looked at
# Until half a pipe may have come, by the pace of late, nothing but signals is looked at, for so long at most:
# small pieces come many at once then, and a command that is over by then wakes us once.
_GATHER = 0.005  # seconds
_ENOUGH = _PIECE // 2


class Stream:
    """One of the files, its pipe (-1: its writer has the file itself), and what is missing of it."""

    __slots__ = ("by_hand", "file", "gap", "hole", "name", "over", "pipe", "size")

    def __init__(self, name: str, file: int, pipe: int) -> None:
        self.name = name
        self.file = file
        self.pipe = pipe
        self.size = 0
        self.hole: tuple[int, int] | None = None
        self.gap = Gap(file)
        self.over = pipe < 0  # nobody is left who could write
        self.by_hand = False  # this file system has no splice

    def carry(self) -> int:
        """Take a piece out of the pipe; returns its bytes, 0 when there is nothing now."""
        if self.pipe < 0:
            return 0
        try:
            count = self._drop() if self.gap.untold and not self.gap.tell() else self._move()
        except BlockingIOError:
            return 0
        self.over = not count
        return count

    def _move(self) -> int:
        """Into the file. Raises BlockingIOError when the pipe is empty."""
        if self.by_hand:
            return self._copy()
        try:
            return os.splice(self.pipe, self.file, _PIECE, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno != errno.EINVAL:
                return self._drop()  # no space, most likely
        self.by_hand = True
        return self._copy()

    def _copy(self) -> int:
        data = os.read(self.pipe, _PIECE)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.file, rest) :]
        except OSError:
            self.gap.add(len(rest))
        return len(data)

    def _drop(self) -> int:
        count = len(os.read(self.pipe, _PIECE))
        self.gap.add(count)
        return count

    def drain(self) -> None:
        """After the last process's end: what is in the pipe, and not what anybody else goes on writing."""
        left = 0 if self.pipe < 0 else fcntl.fcntl(self.pipe, fcntl.F_GETPIPE_SZ)
        while left > 0 and (count := self.carry()):
            left -= count
        if self.gap.untold:
            self.gap.tell(last=True)
        self.size = os.fstat(self.file).st_size


class Output:
    """Both streams of a run, in its shim; ``signals``, which must be blocked, end a wait."""

    def __init__(
        self, handed: Handed, head: int | None, tail: int | None, signals: tuple[signal.Signals, ...]
    ) -> None:
        self._streams = [
            Stream(*stream) for stream in zip(control.STREAMS, handed.files, handed.pipes, strict=True)
        ]
        self._folder = handed.folder
        self._uncapped = head is None and tail is None
        self._unsupported = False
        self._head = head or 0
        self._tail = tail or 0
        self._slack = max(_LEAST_SLACK, self._tail // 4)
        self._signals = kernel.signal_file(signals)
        self._signalled, self._anything = select.poll(), select.poll()
        for waiting in (self._signalled, self._anything):
            waiting.register(self._signals, select.POLLIN)
        self._open = [stream for stream in self._streams if not stream.over]
        for stream in self._open:
            self._anything.register(stream.pipe, select.POLLIN)
        self._gather = _GATHER
        self._carried_at = 0.0

    def pipes(self) -> list[int]:
        """What the pipes are called where a process's files are listed: `pipe:[<number>]`."""
        return [os.fstat(stream.pipe).st_ino for stream in self._streams if stream.pipe >= 0]

    def wait(self, patience: float) -> None:
        """Until there is a signal, or output, or `patience` seconds are over."""
        gather, self._gather = int(self._gather * 1000), 0.0
        if not (gather and self._signalled.poll(gather)):
            self._anything.poll(int(patience * 1000) + 1)
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 1024)

    def carry(self) -> None:
        """Take what has come into the files, as far as the disk has space, and give back what is over the
        cap. Raises nothing that a disk can cause."""
        taken = 0
        for stream in list(self._open):
            for _ in range(_TURNS):
                count = stream.carry()
                taken += count
                if count < _ENOUGH:
                    break
            if stream.over:
                self._open.remove(stream)
                self._anything.unregister(stream.pipe)
            stream.size = os.fstat(stream.file).st_size
            self._cap(stream)
        now = time.monotonic()
        if 0 < taken < _ENOUGH:
            self._gather = min(_GATHER, (now - self._carried_at) * _ENOUGH / taken)
        self._carried_at = now

    def _cap(self, stream: Stream) -> None:
        if self._uncapped or self._unsupported or stream.pipe < 0:
            return
        start, done = stream.hole or (self._head, self._head)
        end = kernel.hole_end(stream.size, self._tail)
        if end - done <= self._slack:
            return
        before = stream.hole
        stream.hole = (start, end)
        try:
            control.write_record("holes", self._holes(), self._folder)
            kernel.punch_hole(stream.file, done, end)
        except OSError as error:
            stream.hole = before
            if error.errno in kernel.UNSUPPORTED:
                self._unsupported = True
                with contextlib.suppress(OSError):
                    control.write_record("holes", self._holes(), self._folder)

    def _holes(self) -> Record:
        """{stream: [first dropped byte, first kept byte after it] or null}."""
        return {stream.name: list(stream.hole) if stream.hole else None for stream in self._streams}

    def summary(self) -> Record:
        """What `exit` says about the output, once no process is left: sizes, holes, what is missing."""
        for stream in self._streams:
            stream.drain()
            self._cap(stream)
        holes = self._holes()
        record: Record = {
            stream.name: {"bytes": stream.size, "hole": holes[stream.name], **stream.gap.record()}
            for stream in self._streams
        }
        if self._unsupported:
            record["uncapped"] = True
        return record

    def close(self) -> None:
        """For a rehearsal, where the process goes on; the files are the handover's."""
        os.close(self._signals)
