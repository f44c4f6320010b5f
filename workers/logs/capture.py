"""Reads what is new in the two output files of a process, for the worker that ships it to the database.

The files only grow. Once a file is longer than head + tail, the launcher's shim may punch out what
lies between head and (its size - tail); a hole reads as zeros and is never shipped. The same cap holds for
what is stored: the reader tells which stored chunks are left over in the middle.

Knows no database: the caller inserts the chunks, deletes the stale ranges and then calls ``mark``. Must not
import Django.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from workers.logs.redaction import Redactor
from workers.vocabulary.specs import DEFAULT_LOG_HEAD, DEFAULT_LOG_TAIL

STDOUT: Final = 1
STDERR: Final = 2
NAMES: Final = {STDOUT: "stdout", STDERR: "stderr"}
STREAMS: Final = tuple(NAMES)
#: Largest chunk in bytes.
CHUNK: Final = 256 * 1024
#: Most bytes of one stream in one shipment: memory stays flat whatever a command writes.
BUDGET: Final = 2 * 1024 * 1024
#: What a look without any byte counts for.
PAGE: Final = 4096
#: Left-over chunks are told in steps of this many bytes, at the end to the last one.
STALE_STEP: Final = 1024 * 1024


@dataclass(frozen=True)
class Chunk:
    """A piece of a stream, to be stored at ``offset``."""

    stream: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Stale:
    """Stored chunks that lie wholly within [start, end) of a stream have to go."""

    stream: int
    start: int
    end: int


@dataclass(frozen=True)
class Place:
    """How far a stream has been read: offset in the file, and in what is stored. They differ by redaction."""

    file: int
    stored: int
    #: Output before this place was left out.
    torn: bool = False
    #: Output was left out somewhere.
    cut: bool = False
    #: Stored chunks are known to be gone from the end of the head up to here.
    cleared: int = 0


@dataclass(frozen=True)
class Report:
    """Whole lines of the report of a run that carries a batch, each with its end; the first begins at byte
    ``offset``."""

    offset: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True)
class Shipment:
    """What to store now. ``log_bytes`` and ``truncated`` describe all output of the attempt so far."""

    chunks: list[Chunk]
    stale: list[Stale]
    log_bytes: int
    truncated: bool
    #: There is more to ship at once.
    more: bool
    places: dict[int, Place]
    #: For the family's books (``vocabulary.transfers.book``), stored in the same transaction.
    report: Report | None = None


class SpoolReader:
    """Both output files of an attempt; one of them where the other is no output (``path_stdout`` None).

    ``shipped`` is {stream: offset after the last stored byte}. ``head`` and ``tail`` are the cap per stream
    in bytes. ``missing`` is asked once the process has ended: {stream: line to put behind its last byte, ""
    for none} of streams of which bytes found no space on the node. Not for use by several threads at once.
    """

    def __init__(
        self,
        path_stdout: Path | None,
        path_stderr: Path,
        shipped: Mapping[int, int] | None = None,
        head: int = DEFAULT_LOG_HEAD,
        tail: int = DEFAULT_LOG_TAIL,
        redactor: Redactor | None = None,
        missing: Callable[[], Mapping[int, str]] = dict,
    ) -> None:
        done = shipped or {}
        self._spools = {
            stream: _Spool(stream, path, done.get(stream, 0), head, tail, redactor or None, missing)
            for stream, path in ((STDOUT, path_stdout), (STDERR, path_stderr))
            if path is not None
        }

    def pending(self, final: bool = False) -> Shipment:
        """Read what is new; nothing counts as shipped before ``mark``.

        ``final``: the process has ended, so the last bytes are not held back. Repeat while ``more``. After a
        failed transaction just call it again: chunks begin at the same offsets, and the store takes the
        longer one of two at the same place.
        """
        readings = [spool.read(final) for spool in self._spools.values()]
        return Shipment(
            chunks=[chunk for reading in readings for chunk in reading.chunks],
            stale=[reading.stale for reading in readings if reading.stale],
            log_bytes=sum(reading.end for reading in readings),
            truncated=any(reading.place.cut for reading in readings),
            more=any(reading.more for reading in readings),
            places={reading.stream: reading.place for reading in readings},
        )

    def mark(self, shipment: Shipment) -> None:
        """The shipment has been committed: go on after it."""
        for stream, place in shipment.places.items():
            self._spools[stream].place = place


@dataclass
class _Reading:
    """One look at one file."""

    stream: int
    place: Place
    #: Length of the stream so far, in stored bytes, what was left out included.
    end: int
    chunks: list[Chunk] = field(default_factory=list)
    #: (stored offset, offset in the file) at the end of each piece.
    ends: list[tuple[int, int]] = field(default_factory=list)
    stale: Stale | None = None
    more: bool = False


class _Spool:
    """One output file."""

    def __init__(
        self,
        stream: int,
        path: Path,
        shipped: int,
        head: int,
        tail: int,
        redactor: Redactor | None,
        missing: Callable[[], Mapping[int, str]],
    ) -> None:
        self._stream = stream
        self._path = path
        self._head = head
        self._tail = tail
        self._redactor = redactor
        self._missing = missing
        self._length = max(CHUNK, 2 * redactor.longest) if redactor else CHUNK
        self._journal = path.with_name(path.name + ".offsets")
        self.place = self._adopted(shipped) if shipped else Place(0, 0)

    def read(self, final: bool) -> _Reading:
        reading = _Reading(self._stream, self.place, self.place.stored)
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            size = self.place.file
        ended = final or size < self.place.file
        line = self._missing().get(self._stream) if ended else None
        # The line counts as what follows the file: an adopter may find that it, or a part of it, is stored.
        if not size <= self.place.file <= size + len(line or ""):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._read_from(descriptor, reading, final)
            finally:
                os.close(descriptor)
        if final and line is not None and not reading.more:
            self._end_with(line.encode(), reading, size)
        self._clear(reading, final)
        if any(stored != file for stored, file in reading.ends):
            self._note(reading.ends)
        return reading

    def _read_from(self, descriptor: int, reading: _Reading, final: bool) -> None:
        size = os.fstat(descriptor).st_size
        if size < reading.place.file:
            # Whoever keeps it began anew, or a command did that has the file itself: it is joined on.
            reading.place = replace(reading.place, file=0, torn=False, cut=True)
        budget = BUDGET
        while budget > 0:
            reading.place = place = self._skipped(reading.place, size)
            if place.file >= size:
                break
            data, torn_end, size = self._piece(descriptor, reading, size)
            if not data and reading.place == place:
                break  # it was emptied while we looked
            at_end = place.file + len(data) >= size
            used = self._take(reading, data, last=final and at_end, torn_end=torn_end)
            if used < len(data) and at_end:
                break  # the rest may begin a secret: it waits for what follows
            budget -= len(data) or PAGE  # even a file that outruns us gets no endless visit
        reading.end = max(0, size - reading.place.file) + reading.place.stored
        reading.more = budget <= 0 and reading.place.file < size

    def _end_with(self, line: bytes, reading: _Reading, size: int) -> None:
        """Bytes are missing; the line that says so finds no space in the file."""
        place = replace(reading.place, cut=True)
        if rest := line[max(0, place.file - size) :]:
            reading.chunks.append(Chunk(self._stream, place.stored, rest))
            place = replace(place, file=place.file + len(rest), stored=place.stored + len(rest))
            reading.ends.append((place.stored, place.file))
            reading.end = place.stored
        reading.place = place

    def _skipped(self, place: Place, size: int) -> Place:
        """Jumps over what is beyond the cap: of the file, and of what is stored."""
        end = size - place.file + place.stored
        cap = self._head + self._tail
        over_file = size > cap and place.file >= self._head
        over_store = end > cap and place.stored >= self._head
        return _jump(place, size - self._tail - place.file) if over_file or over_store else place

    def _piece(self, descriptor: int, reading: _Reading, size: int) -> tuple[bytes, bool, int]:
        """The next real bytes, or none after a jump over a hole.

        Returns (bytes, whether what follows them is left out, size of the file now).
        """
        start = reading.place.file
        try:
            begin = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            begin = size
        if begin > start:
            reading.place = _jump(reading.place, min(begin, size) - start)
            return b"", False, size
        hole = os.lseek(descriptor, start, os.SEEK_HOLE)
        data = os.pread(descriptor, min(self._length, hole - start), start)
        # The shim may have punched while we read. It never punches beyond (its size of then - tail): what is
        # within the cap by the size of now was real.
        size = os.fstat(descriptor).st_size
        if size > self._head + self._tail:
            if self._head <= start < size - self._tail:
                return b"", False, size  # the next round jumps
            if start < self._head <= start + len(data):
                return data[: self._head - start], True, size
        return data, start + len(data) == hole < size, size

    def _take(self, reading: _Reading, data: bytes, *, last: bool, torn_end: bool) -> int:
        """Turns bytes of the file into chunks; returns how many of them were used."""
        place = reading.place
        clean, used = data, len(data)
        if self._redactor is not None:
            clean, used = self._redactor.replace(data, last=last, torn_start=place.torn, torn_end=torn_end)
        for start in range(0, len(clean), CHUNK):
            reading.chunks.append(Chunk(self._stream, place.stored + start, clean[start : start + CHUNK]))
        if used:
            stored, file = place.stored + len(clean), place.file + used
            reading.place = replace(place, file=file, stored=stored, torn=False)
            reading.ends.append((stored, file))
        return used

    def _clear(self, reading: _Reading, final: bool) -> None:
        """Tells which stored chunks lie in the middle by now."""
        end = reading.end - self._tail
        if end <= self._head:
            return
        reading.place = replace(reading.place, cut=True)
        if end - reading.place.cleared >= (1 if final else STALE_STEP):
            reading.stale = Stale(self._stream, self._head, end)
            reading.place = replace(reading.place, cleared=end)

    def _note(self, ends: list[tuple[int, int]]) -> None:
        """Keeps where pieces end in the file before they are stored: an adopter knows stored offsets only."""
        lines = "".join(
            f"{stored} {file}\n" for stored, file in [(self.place.stored, self.place.file), *ends]
        )
        new = self._journal.with_name(self._journal.name + ".new")
        new.write_text(lines)
        new.replace(self._journal)

    def _adopted(self, shipped: int) -> Place:
        """Where in the file the next byte is, for an attempt of which ``shipped`` bytes are stored."""
        try:
            text = self._journal.read_text()
        except FileNotFoundError:
            return Place(shipped, shipped)
        pairs = [(int(stored), int(file)) for stored, file in (line.split() for line in text.splitlines())]
        stored, file = max((pair for pair in pairs if pair[0] <= shipped), default=(0, 0))
        return Place(file + shipped - stored, shipped, cut=stored != shipped)


def _jump(place: Place, by: int) -> Place:
    """``by`` bytes further, none of which is shipped."""
    if by <= 0:
        return place
    return replace(place, file=place.file + by, stored=place.stored + by, torn=True, cut=True)
