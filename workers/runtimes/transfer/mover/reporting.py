"""The report: lines on stdout that the worker brings to the family's books (``transfers.orders``)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any, Final

from workers.runtimes.transfer.mover.element import Element
from workers.storage.trees.base import Entry
from workers.vocabulary.transfers.names import escape
from workers.vocabulary.transfers.reach import Act

#: Lines wait for at most so long, and until there are so many bytes of them.
_FLUSH_S: Final = 0.2
_FLUSH_BYTES: Final = 64 * 1024
#: An element is told to have begun when it has not ended after this; its progress once in a second.
_BEGIN_S: Final = 0.3
_MOVE_S: Final = 1.0
#: Until a full disk is tried again.
_FULL_S: Final = 0.5
_MASK: Final = "***"
#: Most names in a line of the report.
NAMES: Final = 1000


class Reporter:
    """Writes the report; a thread of its own tells of what takes longer. Used by all threads."""

    def __init__(self, file: int, secrets: Sequence[str], *, shared: bool = False) -> None:
        """``shared``: other processes write to the file, too."""
        self._file = file
        self._shared = shared
        self._secrets = sorted((text for text in secrets if len(text) >= 4), key=len, reverse=True)
        self._lock = threading.Lock()
        #: One writer at a time: lines stay whole and in their order.
        self._writing = threading.Lock()
        self._lines: list[str] = []
        self._bytes = 0
        self._running: set[Element] = set()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="reporter", daemon=True)
        self._ticker.start()

    # --- elements ------------------------------------------------------------------------------------

    def begin(self, element: Element) -> None:
        """It is being worked on from now.

        What a run was given before that is over, and nobody knows how far it was, is told at once: if it is
        what movers die of, its tries must be counted, or it would be tried for ever.
        """
        order = element.order
        suspect = order.act == Act.LIST or order.committed
        with self._lock:
            self._running.add(element)
            if suspect:
                self._begun(element, time.monotonic())
        if suspect:
            self.flush()

    def commit(self, element: Element) -> bool:
        """It is about to be made visible: from here on nobody else ends it. False when somebody has."""
        with self._lock:
            element.committing = not element.ended
            return element.committing

    def end(self, element: Element, **told: Any) -> bool:
        """Its end, once: False when it has ended already."""
        order, now = element.order, time.monotonic()
        line: dict[str, Any] = {
            "r": "end", "n": order.n, "attempt": order.attempt, **told, "at": round(time.time(), 3),
            "elapsed": round(now - element.began, 3), "log": self.masked("\n".join(element.log)),
        }  # fmt: skip
        if element.moved:
            line["moved"] = element.moved
        if element.size >= 0:
            line["size"] = element.size
        if element.mtime is not None:
            line["mtime"] = element.mtime
        if element.checksum:
            line["checksum"] = element.checksum
        if element.dst != order.dst:
            line["dst"] = element.dst
        if element.names is not None:
            line["names"] = element.names
        if element.part:
            line["part"] = True
        with self._lock:
            if element.ended:
                return False
            element.ended = True
            self._running.discard(element)
            full = self._add(json.dumps(line))
        if full:
            self.flush()
        return True

    def cut_off(self) -> list[Element]:
        """Those that still run; what is being made visible is left out: its end nobody knows."""
        with self._lock:
            return [element for element in self._running if not element.committing]

    # --- lines ---------------------------------------------------------------------------------------

    def masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text

    def tell(self, line: str) -> None:
        """A line of JSON; waits while the disk is slower than we are."""
        with self._lock:
            full = self._add(line)
        if full:
            self.flush()

    def pour(self, pieces: Iterable[bytes]) -> None:
        """Whole lines, in pieces that may end anywhere, straight to the file: there may be very many."""
        self.flush()
        with self._writing:
            for piece in pieces:
                self._write(piece)

    def note(self, text: str) -> None:
        self.tell(json.dumps({"r": "note", "text": self.masked(text)}))

    def flush(self) -> None:
        """Everything so far is in the file. A full disk is waited for: an end that is not told is lost."""
        with self._writing:
            with self._lock:
                lines, self._lines, self._bytes = self._lines, [], 0
            if not lines:
                return
            lines.append("")
            self._write("\n".join(lines).encode("ascii"))

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        if self._shared:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.write(2, f"mover: the report cannot be written: {error}\n".encode())
                time.sleep(_FULL_S)
        if self._shared:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        self._over.set()
        self._ticker.join()
        self.flush()

    def _add(self, line: str) -> bool:
        self._lines.append(line)
        self._bytes += len(line)
        return self._bytes >= _FLUSH_BYTES

    # --- what takes longer ---------------------------------------------------------------------------

    def _tick(self) -> None:
        while not self._over.wait(_FLUSH_S):
            now = time.monotonic()
            with self._lock:
                for element in self._running:
                    self._look(element, now)
            self.flush()

    def _look(self, element: Element, now: float) -> None:
        order = element.order
        elapsed = now - element.began
        state = (element.part, element.version, element.dst)
        # Whoever writes to another path than the books know says so at once: nobody else is to write there.
        if element.told_begin != state and (elapsed >= _BEGIN_S or element.dst != order.dst):
            self._begun(element, now)  # once more when it has got as far as leaving a part
        if now - element.told_at >= _MOVE_S:
            moved, before = element.moved, element.told_moved
            rate = (moved - before) / (now - element.told_at)
            element.told_at, element.told_moved = now, moved
            line = {"r": "move", "n": order.n, "moved": moved, "instant": round(rate, 1)}
            self._add(json.dumps({**line, "elapsed": round(elapsed, 3)}))

    def _begun(self, element: Element, now: float) -> None:
        order = element.order
        element.told_begin = (element.part, element.version, element.dst)
        line = {
            "r": "begin", "n": order.n, "attempt": order.attempt,
            "at": round(time.time() - (now - element.began), 3), "version": element.version,
            "part": element.part,
        }  # fmt: skip
        if element.size >= 0:
            line["size"] = element.size
        if element.dst != order.dst:
            line["dst"] = element.dst
        self._add(json.dumps(line))


class Lines:
    """The lines of one folder, written to a file."""

    def __init__(self, file: IO[bytes], number: int, folder: bytes) -> None:
        self._number = number
        self.folder = folder
        self.names = 0
        self._file = file
        self._first = True
        self._rows: list[list[Any]] = []
        #: Names that are no UTF-8, and all of a folder whose path is none.
        self._odd: list[list[Any]] = []
        try:
            self._text: str | None = folder.decode()
        except UnicodeDecodeError:
            self._text = None

    def add(self, name: bytes, entry: Entry) -> None:
        row: list[Any] = [
            "", entry.mode, entry.size, entry.mtime_ns // 1_000_000_000, entry.nlink, entry.uid, entry.gid,
            entry.atime, entry.ctime,
        ]  # fmt: skip
        self.names += 1
        if self._text is not None:
            try:
                row[0] = name.decode()
            except UnicodeDecodeError:
                pass
            else:
                rows = self._rows
                rows.append(row)
                if len(rows) > NAMES:
                    self._put(rows[:NAMES], escaped=False, last=False)
                    del rows[:NAMES]
                return
        row[0] = escape(name)
        self._odd.append(row)
        if len(self._odd) > NAMES:
            self._put(self._odd[:NAMES], escaped=True, last=False)
            del self._odd[:NAMES]

    def end(self) -> None:
        if self._odd:
            if self._rows:
                self._put(self._rows, escaped=False, last=False)
            self._put(self._odd, escaped=True, last=True)
        else:
            self._put(self._rows, escaped=self._text is None, last=True)

    def _put(self, rows: list[list[Any]], *, escaped: bool, last: bool) -> None:
        line: dict[str, Any] = {
            "r": "folder",
            "n": self._number,
            "d": escape(self.folder) if escaped else self._text,
        }
        line["e"] = rows
        if self._first:
            line["first"] = True
            self._first = False
        if last:
            line["last"] = True
        if escaped:
            line["x"] = True
        self._file.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
