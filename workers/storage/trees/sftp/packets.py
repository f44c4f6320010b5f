"""The data of one channel as SSH packets, with less to do than by asyncssh's general way.

That one sends two packets for each (an empty one before it, against a weakness of CBC), makes texts of all of
them for a log that nobody reads, and copies each nine times: 60 us for a packet of 32 KiB, 15 here. Only
channel data in AES-GCM (RFC 5647) and past the first exchange of keys goes this way; everything else, and
whatever is not as expected, is asyncssh's: keys, windows, other ciphers, errors. Its state is the only one:
counters are moved on as it does it, so a packet can be sent or taken by either.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncssh.constants import MSG_CHANNEL_DATA
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Bytes = bytes | memoryview

#: How long the padding is, kind of packet, channel, how long the data is.
_HEAD: Final = struct.Struct(">BBII")
#: Of the number before each packet, which is not encrypted, and of the tag after it.
_LENGTH, _TAG, _BLOCK = 4, 16, 16
_LEAST_PADDING: Final = 4
#: Longer than any.
_UNKNOWN: Final = 1 << 40


class _Transport:
    """In the place of the socket's transport, as much of one as asyncssh uses: what is written in one turn of
    the loop goes out together."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort
        self._put = transport.write
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self.flush)
        self._gathered.append(data)

    def flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._put(b"".join(gathered))


class Way:
    """What asyncssh takes for a tunnel: a socket that is connected already."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        def made() -> Any:
            protocol = factory()
            begin = protocol.connection_made
            protocol.connection_made = lambda transport: begin(_Transport(transport))
            return protocol

        return await asyncio.get_running_loop().create_connection(made, sock=self._sock)


class Packets:
    """Of one channel of a connection, asyncssh's objects, whose place it takes in part. Used from the loop's
    thread only."""

    def __init__(self, connection: Any, channel: Any) -> None:
        self._connection = connection
        self._channel = channel
        self._kept: deque[Bytes] = deque()
        self._general_flush = channel._flush_send_buf
        channel._flush_send_buf = self.flush
        connection.data_received = self._come

    def write(self, parts: Sequence[Bytes]) -> None:
        """What is written in one turn of the loop goes out together."""
        if not self._kept:
            asyncio.get_running_loop().call_soon(self.flush)
        self._kept.extend(parts)

    def flush(self) -> None:
        """As much as the other side takes now."""
        channel = self._channel
        while self._kept and channel._send_window and channel._send_state == "open":
            most = min(channel._send_window, channel._send_pktsize)
            size, piece = self._cut(most)
            channel._send_window -= size
            if self._may_seal():
                self._seal(size, piece)
            else:
                channel.send_packet(MSG_CHANNEL_DATA, size.to_bytes(_LENGTH, "big"), *piece)
        if not self._kept:
            self._general_flush()

    def drop(self) -> None:
        """Nothing more is sent."""
        self._kept.clear()

    def _cut(self, most: int) -> tuple[int, list[Bytes]]:
        kept, size = self._kept, 0
        piece: list[Bytes] = []
        while kept and size < most:
            first, room = kept.popleft(), most - size
            if len(first) > room:
                view = memoryview(first)
                kept.appendleft(view[room:])
                first = view[:room]
            piece.append(first)
            size += len(first)
        return size, piece

    # --- out ----------------------------------------------------------------------------------------------

    def _may_seal(self) -> bool:
        """Not where asyncssh has to do more: another cipher, an exchange of keys that goes on or is due."""
        at = self._connection
        due = at._rekey_bytes_sent >= at._rekey_bytes or (
            at._rekey_seconds and time.monotonic() >= at._rekey_time
        )
        return (
            type(at._send_encryption) is GCMEncryption
            and at._kex_complete
            and at._auth_complete
            and not (due or at._compressor or at._deferred_packets)
        )

    def _seal(self, size: int, piece: Sequence[Bytes]) -> None:
        at = self._connection
        padding = -(_HEAD.size + size) % _BLOCK
        if padding < _LEAST_PADDING:
            padding += _BLOCK
        total = _HEAD.size + size + padding
        head = total.to_bytes(_LENGTH, "big")
        said = _HEAD.pack(padding, MSG_CHANNEL_DATA, self._channel._send_chan, size)
        cipher = at._send_encryption._cipher
        sealed = AESGCM(cipher._key).encrypt(
            cipher._iv,
            b"".join((said, *piece, os.urandom(padding))),
            head,
        )
        cipher._update_iv()
        at._send(head)
        at._send(sealed)
        at._send_seq = (at._send_seq + 1) & 0xFFFFFFFF
        at._rekey_bytes_sent += total

    # --- in -----------------------------------------------------------------------------------------------

    def _come(self, data: bytes, datatype: Any = None) -> None:
        """In the place of the connection's ``data_received``; its ``_inpbuf`` holds what is not whole yet."""
        at = self._connection
        at._reset_keepalive_timer()
        if at._inpbuf:
            data, at._inpbuf = bytes(at._inpbuf) + data, b""
        begin = 0
        while self._may_open() and (end := begin + _length(data, begin)) <= len(data):
            if not self._opened(data, begin, end):
                at._inpbuf = data[begin:end]
                at._recv_data()
            begin = end
        if at._transport is None:
            return
        at._inpbuf = bytes(at._inpbuf) + data[begin:]
        if not self._may_open() or _length(at._inpbuf, 0) in range(at._max_recv_pktlen, _UNKNOWN):
            at._recv_data()

    def _may_open(self) -> bool:
        at = self._connection
        return (
            type(at._recv_encryption) is GCMEncryption
            and at._auth_complete
            and at._transport is not None
            and not at._decompressor
            and at._recv_handler == at._recv_pkthdr
        )

    def _opened(self, data: bytes, begin: int, end: int) -> bool:
        """Taken; False: nothing was done with it."""
        at, channel = self._connection, self._channel
        cipher, content = at._recv_encryption._cipher, begin + _LENGTH
        try:
            said = AESGCM(cipher._key).decrypt(cipher._iv, data[content:end], data[begin:content])
        except InvalidTag:
            return False
        if len(said) < _HEAD.size:
            return False
        padding, kind, number, size = _HEAD.unpack_from(said)
        if (kind, number) != (MSG_CHANNEL_DATA, channel._recv_chan) or channel._recv_state != "open":
            return False
        if size > channel._recv_window or _HEAD.size + size + padding != len(said):
            return False
        cipher._update_iv()
        at._recv_seq = (at._recv_seq + 1) & 0xFFFFFFFF
        try:
            channel._accept_data(said[_HEAD.size : _HEAD.size + size])
        except Exception:  # noqa: BLE001 (asyncssh ends the connection by it, as by each of its own)
            at.internal_error()
        return True


def _length(data: bytes, begin: int) -> int:
    """Of the packet there, with all that belongs to it."""
    if len(data) - begin < _LENGTH:
        return _UNKNOWN
    return _LENGTH + int.from_bytes(data[begin : begin + _LENGTH], "big") + _TAG
