"""A connection and its SFTP session as asyncssh has them, with less to do for many small requests.

asyncssh sends two packets for each request (an empty one before it), each by a call of the system of its own,
and makes texts of all of them for a log that nobody reads.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket
from asyncssh.sftp import SFTPClientHandler

#: Bytes that are taken from the connection at once, at most.
_AT_ONCE: Final = 1 << 20
#: Of the number before each answer.
_LENGTH: Final = 4
#: Of an answer: more than was ever asked for.
_LONGEST: Final = 4 << 20


class _Gathering:
    """What is written in one turn of the loop goes out together."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self.flush)
        self._gathered.append(data)

    def flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._put(b"".join(gathered))


class _Transport(_Gathering):
    """In the place of the socket's transport: as much of one as asyncssh uses."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport.write)
        self.get_extra_info = transport.get_extra_info
        self.abort = transport.abort


class _Writer(_Gathering):
    """In the place of a session's writer."""

    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        super().__init__(self._write)
        self._writer = writer
        self.channel = writer.channel

    def _write(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # who waits for answers hears of it where they would have come
            self._writer.write(data)

    def write_eof(self) -> None:
        self.flush()
        self._writer.write_eof()

    def close(self) -> None:
        self._gathered = []
        self._writer.close()


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


class _Silence:
    """In the place of a session's log."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._nothing

    @staticmethod
    def _nothing(*_: Any, **__: Any) -> None:
        pass


class Session(SFTPClientHandler):
    """Its requests are sent at once, in the order in which they are asked; it logs nothing."""

    _silence: Any = _Silence()

    @property
    def logger(self) -> Any:
        return self._silence

    def log_sent_packet(self, *_: Any, **__: Any) -> None:
        pass

    def log_received_packet(self, *_: Any, **__: Any) -> None:
        pass

    async def recv_packets(self) -> None:
        """As asyncssh's own, but answers that have come together are taken apart together."""
        try:
            while self._reader is not None:
                await self._take_apart(self._reader, await self._reader.read(_AT_ONCE))
        except EOFError:
            await self._cleanup(None)
        except PacketDecodeError as error:
            await self._cleanup(asyncssh.SFTPBadMessage(str(error)))
        except (OSError, asyncssh.Error) as error:
            await self._cleanup(error)

    async def _take_apart(self, reader: asyncssh.SSHReader[bytes], come: bytes) -> None:
        """Answers, each after its length; what is missing of the last one is waited for."""
        at, there = 0, len(come)
        if not there:
            raise EOFError
        while at < there:
            if there - at < _LENGTH:
                come = come[at:] + await reader.readexactly(_LENGTH - (there - at))
                at, there = 0, _LENGTH
            end = at + _LENGTH + int.from_bytes(come[at : at + _LENGTH], "big")
            if end - at > _LONGEST:
                raise asyncssh.SFTPBadMessage("an answer is too long")
            answer = come[at + _LENGTH : end]
            if end > there:
                answer += await reader.readexactly(end - there)
            packet = SSHPacket(answer)
            await self._process_packet(packet.get_byte(), packet.get_uint32(), packet)
            at = end

    @classmethod
    async def begun(cls, connection: asyncssh.SSHClientConnection) -> Session:
        """As ``start_sftp_client`` does, whose file objects would wait for each answer."""
        writer, reader, _ = await connection.open_session(subsystem="sftp", encoding=None)
        gathering: Any = _Writer(writer)
        sftp = cls(asyncio.get_running_loop(), "replace", reader, gathering, 3)
        await sftp.start()
        connection.create_task(sftp.recv_packets())
        await sftp.request_limits()
        return sftp
