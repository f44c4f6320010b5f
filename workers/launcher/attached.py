"""The attached stream of one exec: opened by its start, taken apart into frames, kept in a file of its
folder.

What cannot be written is counted and never holds the command up: a line says where bytes are missing
(gaps.py). Both streams go into one file, in the order in which they came (decision 62).
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl

from . import kernel
from .engine import Connection, Refused
from .gaps import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

_RECV = 256 * 1024
_HEAD_MOST = 64 * 1024
_LEAST_SLACK = 64 * 1024  # bytes over the cap before a hole is worth it
_CUT = "the end of its output is missing: whoever kept it was stopped, or its stream was cut"


class Cut(Exception):
    """The stream ended where it should not, or was never there."""


class Stream:
    """Raises OSError when the file cannot be opened; `order` as in listener.py."""

    def __init__(self, place: int, order: Record) -> None:
        self._order = order
        self._file = _File(place, order["head"], order["tail"])
        self._connection: Connection | None = None
        self._raw = bytearray()
        #: The wrapper's first word is still to come; None: there is no wrapper.
        self._word = f"{order['word']}".encode() if order.get("words") is not None else None
        self._first = b""
        #: The command itself is being executed, not only a wrapper around it.
        self.begun = self._word is None
        #: The wrapper found no program of that name.
        self.missing_program = False
        #: Nothing came when it was waited for last.
        self.quiet = False

    def open(self) -> None:
        """Start the exec. Raises Refused, Cut: nobody knows whether it was started."""
        body = b'{"Detach": false, "Tty": false}'
        path = f"{self._order['engine']['api']}/exec/{self._order['exec']}/start"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            self._connection = Connection(self._order["engine"])
            self._connection.connect()
            link = self._connection.sock
            link.sendall(head.encode() + body)
            link.settimeout(None)
            self._answer(link)
            if self._order.get("words") is not None:
                link.sendall(introduction(self._order["word"], self._order["words"]))
                if not isinstance(link, ssl.SSLSocket):  # nor would it be read from any more
                    link.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Cut(f"the engine was not reached: {error}") from error

    def _answer(self, link: socket.socket) -> None:
        """Read the answer's head. Raises Refused, Cut, OSError."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = link.recv(_RECV)
            if not more or len(data) > _HEAD_MOST:
                raise Cut("the engine gave no answer")
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status in (101, 200):
            self._raw += rest
            return
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        while len(rest) < length and (more := link.recv(_RECV)):
            rest += more
        raise Refused(status, rest)

    def take(self, patience: float) -> bool:
        """Take what comes within `patience` seconds; False at the stream's end. Raises Cut."""
        link = self._link()
        if self._raw:
            self._frames()
        if not (isinstance(link, ssl.SSLSocket) and link.pending()):
            waiting = select.poll()
            waiting.register(link, select.POLLIN)
            self.quiet = not waiting.poll(int(patience * 1000))
            if self.quiet:
                return True
        try:
            data = link.recv(_RECV)
        except OSError as error:
            raise Cut(str(error)) from error
        self._raw += data
        self._frames()
        if not data and self._raw:
            raise Cut("it ended within a frame")
        return bool(data)

    def _link(self) -> socket.socket:
        if self._connection is None or self._connection.sock is None:
            raise Cut("it was never opened")
        link: socket.socket = self._connection.sock
        return link

    def _frames(self) -> None:
        raw, at, found = self._raw, 0, []
        while len(raw) - at >= 8:
            size = int.from_bytes(raw[at + 4 : at + 8], "big")
            if len(raw) - at - 8 < size:
                break
            found.append(bytes(raw[at + 8 : at + 8 + size]))
            at += 8 + size
        del raw[:at]
        if found:
            self._keep(b"".join(found))

    def _keep(self, data: bytes) -> None:
        if self._word is not None and not self.begun and not self.missing_program:
            self._first += data
            begins, missing = self._word + b"S\n", self._word + b"X\n"
            if len(self._first) < len(begins) and self._first in (
                begins[: len(self._first)],
                missing[: len(self._first)],
            ):
                return
            self.begun = self._first.startswith(begins)
            self.missing_program = self._first.startswith(missing)
            data = self._first[len(begins) :] if self.begun or self.missing_program else self._first
            self._word = None
        self._file.write(data)

    def words(self, most: int) -> str:
        """What the engine said in the place of output, which is taken back."""
        return self._file.take_back(most)

    def told(self, *, cut: bool) -> Record:
        """For the record of the end: what the run's owner must know of its output (`note`, empty when all of
        it is there), and what gaps.py says of bytes that are missing; `cut`: of its end."""
        gap = self._file.finish()
        if cut:
            return {**gap.record(), "note": _CUT, "untold": f"{gap.untold}\n[{_CUT}]\n"}
        if not gap.missing:
            return {"note": ""}
        note = f"{gap.missing} bytes of its output are missing, there was no space for them"
        return {**gap.record(), "note": note}

    def hang_up(self) -> None:
        """Nothing more is taken: whoever asks the engine then has a descriptor."""
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        self.hang_up()
        self._file.close()


class _File:
    """The output, head and tail of it; the middle is given back to the disk."""

    def __init__(self, place: int, head: int, tail: int) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open("stdout", flags, 0o600, dir_fd=place)
        self._size = os.fstat(self._file).st_size
        self._tail = tail
        self._slack = max(_LEAST_SLACK, tail // 4)
        self._punched = head
        self._gap = Gap(self._file)

    def write(self, data: bytes) -> None:
        """Never raises: what has no space is counted."""
        view = memoryview(data)
        if not self._gap.untold or self._gap.tell():
            with contextlib.suppress(OSError):
                while view:
                    view = view[os.write(self._file, view) :]
        self._gap.add(len(view))
        self._size = os.fstat(self._file).st_size
        self._cap()

    def _cap(self) -> None:
        end = kernel.hole_end(self._size, self._tail)
        if end - self._punched > self._slack:
            try:
                kernel.punch_hole(self._file, self._punched, end)
            except OSError as error:
                if error.errno not in kernel.UNSUPPORTED:
                    return
            self._punched = end

    def take_back(self, most: int) -> str:
        """The beginning of what was written, as text; the file is empty afterwards."""
        said = os.pread(self._file, most, 0).decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            self._size = 0
        return said

    def finish(self) -> Gap:
        """What is missing in the end."""
        self._gap.tell(last=True)
        return self._gap

    def close(self) -> None:
        os.close(self._file)


def introduction(word: str, words: list[str]) -> bytes:
    """What the wrapper reads first (``runtimes/exec/wrapper.py``): its first word, then each word by its
    lines."""
    parts = [word, str(len(words))]
    for each in words:
        parts += [str(each.count("\n") + 1), each]
    return "\n".join([*parts, "go", ""]).encode()
