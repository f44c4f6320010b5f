"""An SFTP session, version 3 (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL): requests and their answers.

A request is sent when it is asked, and its answer is a future: thousands are under way at once, and each is
a few steps of Python. asyncssh's own client has a task, a record and lines of a log for each.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncssh

from workers.storage.trees.sftp.errors import Lost
from workers.storage.trees.sftp.packets import Bytes, Packets
from workers.storage.trees.sftp.words import (
    LARGE,
    NUMBER,
    UNCHANGED,
    attributes,
    failure,
    names,
    pairs,
    space,
    text,
    text_of,
)

Answer = asyncio.Future[Any]

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT, _SETSTAT = 1, 2, 3, 4, 5, 6, 7, 8, 9
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _REALPATH, _STAT, _RENAME = 11, 12, 13, 14, 15, 16, 17, 18
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED, _EXTENDED_REPLY = 101, 102, 103, 104, 105, 200, 201
#: Length, kind and number of a request; of an answer.
_HEAD: Final = struct.Struct(">IBI")
_AT: Final = struct.Struct(">QI")
_THREE: Final = 3
#: Bytes of an answer: more than was ever asked for.
_LONGEST: Final = 4 << 20
#: What each server takes that says nothing about it, in bytes.
_USUAL: Final = 16384


class Session(asyncssh.SSHClientSession[bytes]):
    """Requests are sent in the order in which they are asked. Each gives a future of what the server says; it
    raises asyncssh.SFTPError, or ``Lost``: nothing more comes."""

    def __init__(self, where: str) -> None:
        #: Bytes of one request, at most.
        self.most_read = self.most_written = _USUAL
        #: When something was heard for the last time, or asked while nobody waited (the loop's clock).
        self.heard = 0.0
        #: What whoever waits is told when the connection is no more.
        self.why = f"{where}: the connection was lost"
        self._loop = asyncio.get_running_loop()
        self._extensions: dict[bytes, bytes] = {}
        self._waiting: dict[int, tuple[Answer, int, Callable[[bytes], Any]]] = {}
        self._last = 0
        self._come = bytearray()
        self._needed = 4
        self._packets: Packets | None = None
        self._version: Answer = self._loop.create_future()

    @classmethod
    async def begun(cls, connection: asyncssh.SSHClientConnection, where: str) -> Session:
        """Raises asyncssh.Error, StorageFailed."""
        session = cls(where)
        channel, _ = await connection.create_session(lambda: session, subsystem="sftp", encoding=None)
        session._packets = Packets(connection, channel)
        session._packets.write((struct.pack(">IBI", 5, _INIT, _THREE),))
        await session._version
        if session._offers(b"limits@openssh.com", b"1"):
            _, read, written = struct.unpack_from(">QQQ", await session._extended(b"limits@openssh.com"))
            session.most_read = read or session.most_read
            session.most_written = written or session.most_written
        return session

    @property
    def lost(self) -> bool:
        """Nothing more comes, and nothing more is sent."""
        return self._packets is None

    @property
    def waiting(self) -> bool:
        """Has something been asked and not been answered yet?"""
        return bool(self._waiting)

    # --- requests -----------------------------------------------------------------------------------------

    def open(self, path: bytes, flags: int) -> Answer:
        return self._ask(_OPEN, _HANDLE, text, text_of(path), NUMBER.pack(flags), UNCHANGED)

    def close(self, handle: bytes) -> Answer:
        return self._ask(_CLOSE, 0, text, text_of(handle))

    def read(self, handle: bytes, offset: int, size: int) -> Answer:
        return self._ask(_READ, _DATA, text, text_of(handle), _AT.pack(offset, size))

    def write(self, handle: bytes, offset: int, content: Sequence[Bytes], size: int) -> Answer:
        """``content`` in parts, ``size`` bytes together."""
        return self._ask(_WRITE, 0, text, text_of(handle), _AT.pack(offset, size), *content)

    def stat(self, path: bytes) -> Answer:
        return self._ask(_STAT, _ATTRS, attributes, text_of(path))

    def lstat(self, path: bytes) -> Answer:
        return self._ask(_LSTAT, _ATTRS, attributes, text_of(path))

    def fstat(self, handle: bytes) -> Answer:
        return self._ask(_FSTAT, _ATTRS, attributes, text_of(handle))

    def setstat(self, path: bytes, what: bytes) -> Answer:
        return self._ask(_SETSTAT, 0, text, text_of(path), what)

    def opendir(self, path: bytes) -> Answer:
        return self._ask(_OPENDIR, _HANDLE, text, text_of(path))

    def readdir(self, handle: bytes) -> Answer:
        """(name, Attributes) of each."""
        return self._ask(_READDIR, _NAME, names, text_of(handle))

    def remove(self, path: bytes) -> Answer:
        return self._ask(_REMOVE, 0, text, text_of(path))

    def mkdir(self, path: bytes, what: bytes) -> Answer:
        return self._ask(_MKDIR, 0, text, text_of(path), what)

    def rmdir(self, path: bytes) -> Answer:
        return self._ask(_RMDIR, 0, text, text_of(path))

    def realpath(self, path: bytes) -> Answer:
        """As ``readdir``, of one."""
        return self._ask(_REALPATH, _NAME, names, text_of(path))

    def rename(self, source: bytes, target: bytes) -> Answer:
        return self._ask(_RENAME, 0, text, text_of(source), text_of(target))

    def posix_rename(self, source: bytes, target: bytes) -> Answer:
        return self._optional(b"posix-rename@openssh.com", b"1", 0, text, text_of(source), text_of(target))

    def fsync(self, handle: bytes) -> Answer:
        return self._optional(b"fsync@openssh.com", b"1", 0, text, text_of(handle))

    def statvfs(self, path: bytes) -> Answer:
        return self._optional(b"statvfs@openssh.com", b"2", _EXTENDED_REPLY, space, text_of(path))

    @property
    def copies(self) -> bool:
        return self._offers(b"copy-data", b"1")

    def copy_data(self, source: bytes, offset: int, size: int, target: bytes, to: int) -> Answer:
        parts = (text_of(source), LARGE.pack(offset), LARGE.pack(size), text_of(target), LARGE.pack(to))
        return self._extended(b"copy-data", 0, text, *parts)

    def _offers(self, name: bytes, version: bytes) -> bool:
        return self._extensions.get(name) == version

    def _optional(
        self, name: bytes, version: bytes, due: int, take: Callable[[bytes], Any], *parts: bytes
    ) -> Answer:
        if self._offers(name, version):
            return self._extended(name, due, take, *parts)
        refused: Answer = self._loop.create_future()
        refused.set_exception(asyncssh.SFTPOpUnsupported(f"it has no {name.decode()}"))
        return refused

    def _extended(
        self, name: bytes, due: int = _EXTENDED_REPLY, take: Callable[[bytes], Any] = bytes, *parts: bytes
    ) -> Answer:
        return self._ask(_EXTENDED, due, take, text_of(name), *parts)

    def _ask(self, kind: int, due: int, take: Callable[[bytes], Any], *parts: Bytes) -> Answer:
        """``due``: the kind of answer that ``take`` makes the result of; 0: none but "done"."""
        answer: Answer = self._loop.create_future()
        if self._packets is None:
            answer.set_exception(Lost(self.why))
            return answer
        if not self._waiting:
            self.heard = self._loop.time()
        number = self._last = (self._last + 1) & 0xFFFFFFFF
        self._waiting[number] = answer, due, take
        self._packets.write((_HEAD.pack(5 + sum(map(len, parts)), kind, number), *parts))
        return answer

    # --- answers ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes, datatype: Any) -> None:
        """Answers, each after its length."""
        if datatype is not None:  # words of the server's program
            return
        self.heard = self._loop.time()
        come = self._come
        come += data
        if len(come) < self._needed:
            return
        begin, there = 0, len(come)
        while True:
            self._needed = 4
            if there - begin < self._needed:
                break
            length = NUMBER.unpack_from(come, begin)[0]
            if not 0 < length <= _LONGEST:
                raise asyncssh.ProtocolError("an answer of SFTP has a length that none has")
            self._needed += length
            if there - begin < self._needed:
                break
            end = begin + self._needed
            self._take(bytes(come[begin + 4 : end]))
            begin = end
        del come[:begin]

    def _take(self, said: bytes) -> None:
        if said[0] == _VERSION:
            self._greeted(said)
            return
        try:
            kind, number = struct.unpack_from(">BI", said)
            answer, due, take = self._waiting.pop(number)
        except (KeyError, struct.error) as error:
            raise asyncssh.ProtocolError("an answer of SFTP to what was not asked") from error
        if answer.done():  # nobody waits for it any more
            return
        try:
            if kind == _STATUS:
                if (failed := failure(said)) is not None:
                    answer.set_exception(failed)
                    return
                if due:
                    raise ValueError("done")
                answer.set_result(None)
            elif kind == due:
                answer.set_result(take(said[5:]))
            else:
                raise ValueError(kind)
        except (ValueError, struct.error, asyncssh.Error):
            answer.set_exception(asyncssh.SFTPBadMessage("the server's answer cannot be read"))

    def _greeted(self, said: bytes) -> None:
        if self._version.done():
            return
        version, at = NUMBER.unpack_from(said, 1)[0], 5
        if version < _THREE:
            self._version.set_exception(asyncssh.SFTPBadMessage(f"it speaks version {version} of SFTP"))
            return
        self._extensions = pairs(said, at)
        self._version.set_result(version)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()

    def lose(self) -> None:
        """Whoever waits hears that nothing comes."""
        if self._packets is not None:
            self._packets.drop()
            self._packets = None
        waiting, self._waiting = self._waiting, {}
        for answer in (self._version, *(answer for answer, _, _ in waiting.values())):
            if not answer.done():
                answer.set_exception(Lost(self.why))
