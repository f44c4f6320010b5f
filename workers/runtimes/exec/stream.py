"""One attached exec as bytes: the engine's frames, and in them the lines of the wrapper (``scripts``).

``ExecStream`` is fed by the reading thread (``container.output.Follower``) and tells a track what it finds.
The wrapper's lines begin with a word that nobody else knows, so they are found anywhere in the output, also
where they are torn. Must not import Django.
"""

from __future__ import annotations

from typing import Final, Protocol

from workers.logs.capture import STDOUT

#: What an engine says instead of output is kept up to here, in bytes.
_WORDS_MOST: Final = 4096
#: A line of the wrapper is never longer.
_LINE_MOST: Final = 4096


class Lines:
    """Takes the wrapper's lines out of a stream: bytes in, output and lines out, in order."""

    def __init__(self, word: bytes) -> None:
        self._word = word
        #: What may be the beginning of a line: not output yet.
        self.held = b""

    def split(self, data: bytes) -> list[bytes | str]:
        """Output as bytes, lines as text without the word."""
        data, found = self.held + data, list[bytes | str]()
        while (at := data.find(self._word)) >= 0:
            if at:
                found.append(data[:at])
            end = data.find(b"\n", at)
            if end < 0 and len(data) - at < _LINE_MOST:
                self.held = data[at:]
                return found
            end = end if end >= 0 else len(data)
            found.append(data[at + len(self._word) : end].decode(errors="replace"))
            data = data[end + 1 :]
        keep = self._beginning(data)
        if len(data) > keep:
            found.append(data[: len(data) - keep])
        self.held = data[len(data) - keep :]
        return found

    def _beginning(self, data: bytes) -> int:
        """How many last bytes may be the beginning of the word."""
        for length in range(min(len(self._word) - 1, len(data)), 0, -1):
            if data.endswith(self._word[:length]):
                return length
        return 0


class Listener(Protocol):
    """Whom a stream tells what it finds."""

    def output(self, data: bytes) -> None: ...

    def line(self, letter: str, words: list[str]) -> None: ...


class ExecStream:
    """Takes what follows an exec's start apart: frames, lines. ``lines`` None: all is output."""

    #: Without chunks and timestamps: its end is the connection's.
    attached = True
    ended = False

    def __init__(self, listener: Listener, lines: Lines | None) -> None:
        self._listener = listener
        self._lines = lines
        self._raw = bytearray()
        #: How many first bytes of output are known already.
        self.skip = 0
        #: What came that is no output: the engine's words, or a shell's.
        self.words = b""

    def feed(self, data: bytes) -> None:
        """Raises what the listener raises."""
        self._raw += data
        raw, at = self._raw, 0
        while len(raw) - at >= 8:
            size = int.from_bytes(raw[at + 4 : at + 8], "big")
            if len(raw) - at - 8 < size:
                break
            stream, piece = raw[at], bytes(raw[at + 8 : at + 8 + size])
            at += 8 + size
            self._take(stream, piece)
        del raw[:at]

    def _take(self, stream: int, piece: bytes) -> None:
        if self._lines is None:
            self._listener.output(piece)
            return
        if stream != STDOUT:
            self.words = (self.words + piece)[:_WORDS_MOST]
            return
        for found in self._lines.split(piece):
            if isinstance(found, str):
                self._listener.line(found[:1], found[1:].split())
                continue
            skipped = min(self.skip, len(found))
            self.skip -= skipped
            if len(found) > skipped:
                self._listener.output(found[skipped:])
