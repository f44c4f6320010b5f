"""Log streams of containers: taken apart as their bytes come, any number of them read by one thread.

Byte for byte and split by stream, which the SDK's ``logs`` are not. A stream's end is no proof of the
container's end. Must not import Django.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from workers.logs.capture import STREAMS
from workers.runtimes.container.output import Spool
from workers.runtimes.engine.link import Channel

logger = logging.getLogger(__name__)

#: Length of a timestamp as the engine writes it, nanoseconds always with nine digits: it sorts as text.
_STAMP: Final = 30
#: A longer line comes in pieces of this many bytes.
_ENGINE_BUFFER: Final = 16 * 1024
_RECV: Final = 256 * 1024


class CutError(Exception):
    """The stream ended where it should not, or says what nobody understands."""


class LogStream:
    """Takes the body of an answer apart as its bytes come: HTTP's chunks if it is ``chunked``, then frames.

    ``ended`` after the last chunk. ``attached``: the live stream, byte for byte what was written, without
    timestamps. Otherwise the engine's log: a line longer than the engine's buffer comes in pieces, and some
    engines lose the line feed after the last of them. It is put back once something follows; at the very end
    nobody can tell.
    """

    def __init__(
        self,
        take: Callable[[list[tuple[int, bytes, bytes]]], None],
        *,
        attached: bool = False,
        chunked: bool = False,
    ) -> None:
        self._take = take
        self.attached = attached
        self._raw = bytearray()
        self._frames = bytearray()
        self._chunk_left = 0
        self._after_chunk = False
        self._chunked = chunked
        #: Streams whose last piece was a full buffer; streams that are owed a line feed.
        self._in_line: set[int] = set()
        self._owed: set[int] = set()
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Raises CutError, and what ``take`` raises."""
        if self._chunked:
            self._raw += data
            self._read_chunks()
        else:
            self._frames += data
        self._read_frames()

    def _read_chunks(self) -> None:
        raw, at = self._raw, 0
        while not self.ended:
            if self._chunk_left:
                piece = raw[at : at + self._chunk_left]
                if not piece:
                    break
                self._frames += piece
                at += len(piece)
                self._chunk_left -= len(piece)
                self._after_chunk = not self._chunk_left
                continue
            if self._after_chunk:
                if len(raw) - at < 2:
                    break
                at += 2
                self._after_chunk = False
                continue
            end = raw.find(b"\r\n", at)
            if end < 0:
                break
            try:
                self._chunk_left = int(raw[at:end].split(b";")[0], 16)
            except ValueError:
                raise CutError("the stream's chunks do not follow each other") from None
            at = end + 2
            self.ended = not self._chunk_left
        del raw[:at]

    def _read_frames(self) -> None:
        frames, at, found = self._frames, 0, []
        while len(frames) - at >= 8:
            size = int.from_bytes(frames[at + 4 : at + 8], "big")
            if len(frames) - at - 8 < size:
                break
            stream, start = frames[at], at + 8
            at = start + size
            if stream not in STREAMS or (size <= _STAMP and not self.attached):
                raise CutError(f"the engine says: {bytes(frames[start:at]).decode(errors='replace').strip()}")
            if self.attached:
                found.append((stream, b"", bytes(frames[start:at])))
            else:
                stamp = bytes(frames[start : start + _STAMP])
                found.append((stream, stamp, self._mended(stream, bytes(frames[start + _STAMP + 1 : at]))))
        del frames[:at]
        if found:
            self._take(found)

    def _mended(self, stream: int, piece: bytes) -> bytes:
        """A piece of the log with the line feed that is owed before it."""
        owed = b"\n" if stream in self._owed else b""
        self._owed.discard(stream)
        if len(piece) >= _ENGINE_BUFFER and not piece.endswith(b"\n"):
            self._in_line.add(stream)
        elif stream in self._in_line:
            self._in_line.discard(stream)
            if not piece:
                return owed + b"\n"  # nothing but the line feed was left of the line
            if not piece.endswith(b"\n"):
                self._owed.add(stream)
        return owed + piece


class Follower:
    """The reading thread: any number of log streams, one descriptor each."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._new: deque[tuple[Channel, Spool, LogStream, Callable[[], None]]] = deque()
        self._unwanted: deque[Spool] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, channel: Channel, spool: Spool, stream: LogStream, ended: Callable[[], None]) -> None:
        """Read a stream until its end, then call ``ended`` (in the reading thread; it must be quick).

        The caller has locked the spool; it is unlocked at the end.
        """
        spool.open, spool.clean, spool.trouble = True, False, ""
        with self._lock:
            self._new.append((channel, spool, stream, ended))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._read_forever, name="container-output", daemon=True
                )
                self._thread.start()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def forget(self, spool: Spool, patience_s: float = 2.0) -> None:
        """Stop reading into a spool; returns when nothing is written to it any more."""
        self._unwanted.append(spool)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")
        deadline = time.monotonic() + patience_s
        while spool.open and time.monotonic() < deadline:
            time.sleep(0.005)

    def _read_forever(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._admit()
                else:
                    self._read(key.fileobj, *key.data)  # type: ignore[arg-type]

    def _admit(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._new:
            channel, spool, stream, ended = self._new.popleft()
            self._selector.register(channel, selectors.EVENT_READ, (spool, stream, ended))
            self._read(channel, spool, stream, ended)  # what came with the answer's head
        while self._unwanted:
            unwanted = self._unwanted.popleft()
            for key in list(self._selector.get_map().values()):
                if key.data is not None and key.data[0] is unwanted:
                    self._end(key.fileobj, unwanted, "it was left")  # type: ignore[arg-type]

    def _end(self, channel: Channel, spool: Spool, trouble: str) -> None:
        self._selector.unregister(channel)
        channel.close()
        spool.trouble = trouble
        spool.clean = not trouble
        spool.unlock()
        spool.open = False

    def _read(self, channel: Channel, spool: Spool, stream: LogStream, ended: Callable[[], None]) -> None:
        trouble, over = "", True
        try:
            data = channel.recv(_RECV)
            if data:
                stream.feed(data)
            elif not stream.attached:
                trouble = "the stream was cut"
            over = not data
        except BlockingIOError:
            return
        except (OSError, CutError) as error:
            trouble = str(error) or type(error).__name__
        except Exception as error:
            logger.exception("reading the output of a container failed")
            trouble = str(error) or type(error).__name__
        if stream.ended or over or trouble:
            self._end(channel, spool, trouble)
            ended()
