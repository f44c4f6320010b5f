"""The output of containers on the node: local spool files, and how far each stream has been taken.

Byte for byte and split by stream. What has been taken is known from the spool's size and a small journal of
timestamps, so a stream that was cut, or a worker that died, goes on without loss or doubling: what is read
again is counted off. Must not import Django.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from workers.launcher import control, kernel
from workers.logs.capture import NAMES, STDERR, STDOUT, STREAMS

_LEAST_SLACK: Final = 64 * 1024
#: Growth in bytes after which the journal is written again.
_NOTE_BYTES: Final = 4 * 1024 * 1024
_OVERLAP_S: Final = 2
_REFUSAL: Final = re.compile(rb"\[FATAL tini \(\d+\)\] exec (.*) failed: (.*)\n", re.DOTALL)
_REFUSAL_MOST: Final = 4096


@dataclass
class Mark:
    """How far one stream has been taken: ``seen`` frames since the timestamp ``since``, ``total`` in all,
    ``offset`` bytes. ``since`` is empty when timestamps ran backwards: then ``seen`` is ``total``."""

    since: bytes = b""
    seen: int = 0
    total: int = 0
    offset: int = 0

    def count(self, stamp: bytes) -> None:
        self.total += 1
        if self.total == 1 or stamp > self.since != b"":
            self.since, self.seen = stamp, 1
        elif stamp == self.since:
            self.seen += 1
        else:  # the clock was set back: from now on frames are counted from the beginning
            self.since, self.seen = b"", self.total


class _Skip:
    """What a stream that is read again repeats."""

    def __init__(self, mark: Mark, size: int) -> None:
        self._since = mark.since
        self.frames = mark.seen
        self.bytes = size - mark.offset
        self.met = not mark.since

    def repeats(self, stamp: bytes) -> bool:
        """Was this frame taken before?"""
        if not self.frames:
            return False
        if stamp < self._since:
            return True
        if stamp > self._since and not self.met:
            # What was taken last is gone from the engine's own files: nothing is repeated.
            self.frames = self.bytes = 0
            return False
        self.met = True
        self.frames -= 1
        return True


class Spool:
    """Both output files of one attempt on the node. One thread at a time reads into it."""

    def __init__(self, folder: Path, head: int, tail: int) -> None:
        self.folder = folder
        self.head = head
        self.tail = tail
        self._slack = max(_LEAST_SLACK, tail // 4)
        self._punched = dict.fromkeys(STREAMS, head)
        self._noted = 0
        self._lock: int | None = None
        self._marks = self._read_journal()
        self._sizes = {stream: self._size(stream) for stream in STREAMS}
        self._skips = self._fresh_skips()
        #: A stream is open; the last one ended properly; why it did not.
        self.open = False
        self.clean = False
        self.trouble = ""
        #: Streams of which the last bytes that came found no space.
        self._short: set[int] = set()
        #: Output that is given up, as ``SpoolReader`` asks for it.
        self.missing: dict[int, str] = {}

    def give_up(self, why: str) -> None:
        """Nobody will read the rest of the output: a line at its end says why."""
        self.missing = dict.fromkeys(self._short or STREAMS, f"\n[the end of the output is missing: {why}]\n")

    def path(self, stream: int) -> Path:
        return self.folder / NAMES[stream]

    def make_up(self, shipped: Mapping[int, int]) -> None:
        """Files that are gone count as taken as far as they have been stored elsewhere."""
        for stream, size in shipped.items():
            if stream in self._sizes and self._sizes[stream] < size and self._marks[stream].total == 0:
                with self.path(stream).open("ab") as file:
                    file.truncate(size)
                self._sizes[stream] = size

    def lock(self) -> bool:
        """Become the one that writes; False while somebody else is. Raises OSError."""
        if self._lock is None:
            self._lock = control.try_lock(str(self.folder / "output.lock"))
        return self._lock is not None

    def unlock(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def query(self) -> dict[str, Any]:
        """What to ask the engine's log for, to go on where it was left; then the next frames may be given."""
        self._sizes = {stream: self._size(stream) for stream in STREAMS}
        self._skips = self._fresh_skips()
        self._short = set()
        since = min(mark.since for mark in self._marks.values() if mark.total) if self._started else b""
        return {"stdout": True, "stderr": True, "timestamps": True, "since": _unix(since) if since else None}

    @property
    def _started(self) -> bool:
        return any(mark.total for mark in self._marks.values())

    def take(self, frames: list[tuple[int, bytes, bytes]]) -> None:
        """Write frames to the files. Raises OSError; then what was not written will be read again."""
        marks = {stream: Mark(**mark.__dict__) for stream, mark in self._marks.items()}
        pieces: dict[int, list[bytes]] = {}
        for stream, stamp, data in frames:
            if not stamp:
                pieces.setdefault(stream, []).append(data)
                continue
            skip = self._skips[stream]
            if skip.frames and skip.repeats(stamp):
                continue
            marks[stream].count(stamp)
            if skip.bytes:
                drop = min(skip.bytes, len(data))
                skip.bytes -= drop
                marks[stream].offset += drop
                rest = data[drop:]
            else:
                rest = data
            marks[stream].offset += len(rest)
            pieces.setdefault(stream, []).append(rest)
        for stream, parts in pieces.items():
            self._short.add(stream)
            self._append(stream, b"".join(parts))
            self._short.discard(stream)
        self._marks = marks
        taken = sum(mark.offset for mark in marks.values())
        if taken - self._noted >= _NOTE_BYTES:
            self._noted = taken
            self._write_journal()

    def refusal_of_init(self) -> str:
        """What the container's init says when it cannot execute the command; empty if that is not all."""
        if self._sizes[STDOUT] or not 0 < self._sizes[STDERR] < _REFUSAL_MOST:
            return ""
        found = _REFUSAL.fullmatch(self.path(STDERR).read_bytes())
        return f"{found[1].decode(errors='replace')}: {found[2].decode(errors='replace')}" if found else ""

    def note(self) -> None:
        """Write down how far it came: without it everything is read again from the start."""
        with contextlib.suppress(OSError):
            self._write_journal()

    def _append(self, stream: int, data: bytes) -> None:
        if not data:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.path(stream), flags, 0o600)
        try:
            view = memoryview(data)
            while view:
                done = os.write(file, view)
                self._sizes[stream] += done
                view = view[done:]
            self._cap(stream, file)
        finally:
            os.close(file)

    def _cap(self, stream: int, file: int) -> None:
        """Beyond the cap the middle is given back to the disk, as the shim of a command does."""
        end = kernel.hole_end(self._sizes[stream], self.tail)
        if end - self._punched[stream] > self._slack:
            try:
                kernel.punch_hole(file, self._punched[stream], end)
            except OSError as error:
                if error.errno not in kernel.UNSUPPORTED:
                    raise
            self._punched[stream] = end

    def _size(self, stream: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.path(stream).stat().st_size
        return 0

    def _fresh_skips(self) -> dict[int, _Skip]:
        return {stream: _Skip(self._marks[stream], self._sizes[stream]) for stream in STREAMS}

    def _read_journal(self) -> dict[int, Mark]:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            told = json.loads((self.folder / "journal").read_text())
            return {
                stream: Mark(str(since).encode(), int(seen), int(total), int(offset))
                for stream in STREAMS
                for since, seen, total, offset in [told[NAMES[stream]]]
            }
        return {stream: Mark() for stream in STREAMS}

    def _write_journal(self) -> None:
        told = {
            NAMES[stream]: [mark.since.decode(), mark.seen, mark.total, mark.offset]
            for stream, mark in self._marks.items()
        }
        new = self.folder / "journal.new"
        new.write_text(json.dumps(told))
        new.replace(self.folder / "journal")


def _unix(stamp: bytes) -> str:
    """A little before the engine's timestamp, in the form that its ``since`` takes: seconds.nanoseconds.

    Before, because the two streams are stamped first and written afterwards: they may overtake each other.
    """
    text = stamp.decode()
    seconds = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return f"{int(seconds) - _OVERLAP_S}.{text[20:29]}"
