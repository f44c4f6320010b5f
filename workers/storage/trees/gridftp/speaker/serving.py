"""What a speaker is told to do (``__main__``), one order after the other."""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import stat
import time
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from typing import Any

from .library import BEGIN, DATA, DONE, END, EXTENDED, MARK, TOLD_S, Calendar, Failed, Library

BLOCK = 1 << 20
#: Blocks under way at once: the network is busy while a file is read or written.
BLOCKS = 4


class Speaker:
    """Does what it is told, one thing at a time."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.library = Library()
        self.parent = os.getppid()
        self._plain = self.library.attributes()
        self._moved = 0
        self._told = 0.0
        self._ended = False
        self._failed: Failed | None = None
        self._done = DONE(self._on_done)
        self._marks = (BEGIN(lambda *_: None), MARK(self._on_mark), END(lambda *_: None))
        self._stripes: dict[int, int] = {}
        self._third = self._piped = False
        blocks = [(ctypes.c_char * BLOCK)() for _ in range(BLOCKS)]
        self._blocks = {ctypes.addressof(block): memoryview(block).cast("B") for block in blocks}
        plugin = c_void_p()
        self.library("perf_plugin_init", byref(plugin), *self._marks, None)
        self.library("handle_add_plugin", byref(self.library.handle), byref(plugin))

    def serve(self) -> None:
        lines = b""
        while True:
            fds = array.array("i")
            while b"\n" not in lines:
                piece, ancillary, _, _ = self.peer.recvmsg(1 << 16, socket.CMSG_SPACE(4))
                if not piece:
                    return
                lines += piece
                for _, _, data in ancillary:
                    fds.frombytes(data[:4])
            line, _, lines = lines.partition(b"\n")
            self._answer(json.loads(line), fds[0] if fds else -1)

    def _answer(self, order: dict[str, Any], file: int) -> None:
        self._moved, self._told, self._stripes = 0, time.monotonic(), {}
        self._third = order["do"] == "third"
        self._piped = file >= 0 and not stat.S_ISREG(os.fstat(file).st_mode)
        try:
            answer = {"ok": True, **getattr(self, f"do_{order['do']}")(order, file)}
        except Failed as failed:
            answer = {"ok": False, "code": failed.code, "text": str(failed)}
        except OSError as error:
            answer = {"ok": False, "code": 0, "text": f"{error.strerror}", "errno": error.errno}
        finally:
            if file >= 0:
                os.close(file)
        self._say(answer)

    def _say(self, answer: dict[str, Any]) -> None:
        self.peer.sendall(json.dumps(answer).encode() + b"\n")

    # --- what takes one question ------------------------------------------------------------------

    def do_stat(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        buffer, length = c_void_p(), c_size_t()
        self._run("mlst", order["url"], byref(self._plain), byref(buffer), byref(length))
        return {"facts": self.library.freed(buffer, length.value).decode("latin-1")}

    def do_mkdir(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        self._run("mkdir", order["url"], byref(self._plain))
        return {}

    def do_rmdir(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        self._run("rmdir", order["url"], byref(self._plain))
        return {}

    def do_unlink(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        self._run("delete", order["url"], byref(self._plain))
        return {}

    def do_rename(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        self._run("move", order["url"], order["to"].encode(), byref(self._plain))
        return {}

    def do_chmod(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        self._run("chmod", order["url"], c_int(order["mode"]), byref(self._plain))
        return {}

    def do_utime(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        at = time.gmtime(order["at"])
        calendar = Calendar()
        calendar.numbers[:6] = (
            at.tm_sec,
            at.tm_min,
            at.tm_hour,
            at.tm_mday,
            at.tm_mon - 1,
            at.tm_year - 1900,
        )
        self._run("utime", order["url"], byref(calendar), byref(self._plain))
        return {}

    def do_checksum(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        found = ctypes.create_string_buffer(1024)
        whole = (c_int64(0), c_int64(-1))
        self._run("cksm", order["url"], byref(self._plain), found, *whole, order["algorithm"].encode())
        return {"checksum": found.value.decode("latin-1")}

    def do_authority(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        number, subject = self.library.authority(order["pem"].encode())
        return {"hash": number, "subject": subject}

    # --- content ----------------------------------------------------------------------------------

    def do_list(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        return self._receive(file, "machine_list", order["url"], byref(self._plain))

    def do_get(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        attributes, offset = self.library.attributes(order["streams"]), order["offset"]
        if offset:
            span = (c_int64(offset), c_int64(-1))
            return self._receive(file, "partial_get", order["url"], byref(attributes), None, *span)
        return self._receive(file, "get", order["url"], byref(attributes), None)

    def do_put(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        offset = order["offset"]
        if not offset:
            try:
                self._run("delete", order["url"], byref(self._plain))
            except Failed as failed:
                if not failed.code:  # else nothing is there, or what is wrong the next answer tells, too
                    raise
        # From an offset on only in order: over several connections Globus' server puts blocks elsewhere.
        attributes = self.library.attributes(1 if offset else order["streams"])
        if offset:
            span = (c_int64(offset), c_int64(-1))
            return self._send(
                file, order["whole"], "partial_put", order["url"], byref(attributes), None, *span
            )
        return self._send(file, order["whole"], "put", order["url"], byref(attributes), None)

    def do_third(self, order: dict[str, Any], file: int) -> dict[str, Any]:
        # Only in this mode servers say how far they are.
        attributes = self.library.attributes(order["streams"], EXTENDED)
        both = (byref(attributes), order["to"].encode(), byref(attributes), None)
        self._run("third_party_transfer", order["url"], *both)
        return {"moved": self._moved}

    def _receive(self, file: int, name: str, url: str, *args: Any) -> dict[str, Any]:
        """Content of the server into ``file``: at its place in a file, in order into a pipe."""
        wrong: list[OSError] = []

        def arrived(_: Any, __: Any, error: int, buffer: int, length: int, offset: int, eof: int) -> None:
            try:
                if length and not error and not wrong:
                    piece = self._blocks[buffer][:length]
                    if self._piped:  # one connection: they come in order
                        _write(file, piece)
                    else:
                        _write_at(file, piece, offset)
                    self._moved += length
            except OSError as failed:
                wrong.append(failed)
                self.library.client.globus_ftp_client_abort(byref(self.library.handle))
            if not (eof or error or wrong):
                read(buffer)

        def read(buffer: int) -> None:
            self.library("register_read", handle, c_void_p(buffer), c_size_t(BLOCK), arriving, None)

        arriving, handle = DATA(arrived), byref(self.library.handle)
        self._begin(name, url, *args)
        try:
            for buffer in self._blocks:
                read(buffer)
        except Failed:
            pass  # it is over already; why, the end tells
        self._end()
        if wrong:
            raise wrong[0]
        if self._failed is not None:
            raise self._failed
        return {"moved": self._moved}

    def _send(self, file: int, whole: bool, name: str, url: str, *args: Any) -> dict[str, Any]:
        """What is in ``file``, to its end, to the server. ``whole``: all of it is there already."""
        handle, offset, begun, eof = byref(self.library.handle), 0, whole, False
        free = list(self._blocks)

        def gone(_: Any, __: Any, error: int, buffer: int, length: int, ___: int, ____: int) -> None:
            free.append(buffer)
            self.library.wake()
            if not error:
                self._moved += length

        going = DATA(gone)
        self._begin(name, url, *args)
        while not (eof or self._ended):
            if not free:
                self._wait()
                continue
            buffer = free.pop()
            length, eof = _fill(file, self._blocks[buffer], whole=begun)
            if eof:
                self._piped = False  # whoever waits now hears that the rest still moves
            try:
                at = (c_size_t(length), c_int64(offset), c_int(eof))
                self.library("register_write", handle, c_void_p(buffer), *at, going, None)
            except Failed:
                break  # it is over; why, the end tells
            offset += length
            if not begun and self._piped:
                while len(free) < BLOCKS and not self._ended:
                    self._wait()
                self._say({"begun": True})
            begun = True
        self._end()
        if self._failed is not None:
            raise self._failed
        return {"moved": offset}

    # --- one operation of the library -------------------------------------------------------------

    def _run(self, name: str, url: str, *args: Any) -> None:
        self._begin(name, url, *args)
        self._end()
        if self._failed is not None:
            raise self._failed

    def _begin(self, name: str, url: str, *args: Any) -> None:
        self._ended, self._failed = False, None
        self.library(name, byref(self.library.handle), url.encode(), *args, self._done, None)

    def _end(self) -> None:
        while not self._ended:
            self._wait()

    def _wait(self) -> None:
        self.library.poll()
        now = time.monotonic()
        if now - self._told >= TOLD_S:
            self._told = now
            if os.getppid() != self.parent:
                os._exit(0)
            if not self._piped:
                self._say({"moved": self._moved})

    def _on_done(self, _: Any, __: Any, error: int | None) -> None:
        self._failed = self.library.failed(error) if error else None
        self._ended = True
        self.library.wake()

    def _on_mark(self, _: Any, __: Any, ___: int, ____: bytes, stripe: int, _____: int, count: int) -> None:
        if self._third:  # what we move ourselves we count ourselves
            self._stripes[stripe] = count
            self._moved = sum(self._stripes.values())


def _fill(file: int, block: memoryview, *, whole: bool) -> tuple[int, bool]:
    """How many bytes have come, and whether that was the end; not ``whole``: what there is now is enough."""
    length = 0
    while length < len(block) and (whole or not length):
        count = os.readv(file, [block[length:]])
        if not count:
            return length, True
        length += count
    return length, False


def _write(file: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(file, piece) :]


def _write_at(file: int, piece: memoryview, offset: int) -> None:
    while piece:
        count = os.pwrite(file, piece, offset)
        piece, offset = piece[count:], offset + count
