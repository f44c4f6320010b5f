"""The SFTP session of a connection, as asyncssh has it, with less to do for many small requests."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh
from asyncssh.sftp import SFTPClientHandler


class Session(SFTPClientHandler):
    """Writes no log: asyncssh makes the text of each packet, read or not."""

    def log_sent_packet(self, *_: Any, **__: Any) -> None:
        pass

    def log_received_packet(self, *_: Any, **__: Any) -> None:
        pass


class Gathering:
    """In the place of an ``SSHWriter``: what is written in one turn of the loop goes out together.

    Else each request is two SSH packets (asyncssh puts an empty one before it) and two calls of the system.
    """

    def __init__(self, writer: asyncssh.SSHWriter[bytes]) -> None:
        self._writer = writer
        self._gathered: list[bytes] = []

    @property
    def channel(self) -> asyncssh.SSHChannel[bytes]:
        return self._writer.channel

    def write(self, data: bytes) -> None:
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(data)

    def write_eof(self) -> None:
        self._flush()
        self._writer.write_eof()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self._writer.is_closing():
            self._writer.write(b"".join(gathered))
