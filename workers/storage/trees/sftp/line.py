"""One connection to an SSH server with one SFTP session on it; used from the loop's thread only."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Self, TypeVar

import asyncssh

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.sftp.connecting import connected
from workers.storage.trees.sftp.errors import Lost, translated
from workers.storage.trees.sftp.session import Session
from workers.vocabulary.transfers.reach import Reach

T = TypeVar("T")

#: Requested but not answered reads and writes of one connection together, in bytes; each file may have one
#: request at least.
AHEAD: Final = 16 << 20
_LOSSES: Final = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, OSError)
#: How long a server may take to say good-bye.
_FAREWELL_S: Final = 2.0
#: Of one file at most.
_AHEAD_ONE: Final = 8 << 20


class Line:
    """``base`` and ``home`` are the server's own absolute paths, without links. ``files`` that are open."""

    def __init__(
        self, reach: Reach, stall_s: float, connection: asyncssh.SSHClientConnection, sftp: Session
    ) -> None:
        self.files = 0
        self.base = self.home = b"/"
        self._reach = reach
        self._stall_s = stall_s
        self._connection = connection
        self.sftp = sftp
        self._waiting = 0
        self._heard = 0.0
        self._silent = self._lost = False
        self._watch = asyncio.create_task(self._watching())

    @classmethod
    async def connect(cls, reach: Reach, stall_s: float) -> Self:
        """Raises StorageFailed."""
        try:
            async with asyncio.timeout(stall_s):
                line = cls(reach, stall_s, *await connected(reach, stall_s))
                try:
                    await line._look_around()
                except BaseException:
                    line.cut()
                    raise
        except TimeoutError as error:
            raise StorageFailed(
                f"{reach.shown}: no answer for {stall_s:g} s while connecting", Trouble.AWAY
            ) from error
        return line

    @property
    def lost(self) -> bool:
        return self._lost or self._connection.is_closed()

    @property
    def openssh(self) -> bool:
        """It answers one request after the other, and its rename fails where the target is there: some others
        replace it."""
        return "OpenSSH" in str(self._connection.get_extra_info("server_version", ""))

    def ahead(self, piece: int) -> int:
        """How many requests of ``piece`` bytes one file may have under way now."""
        return max(1, min(AHEAD // max(1, self.files), _AHEAD_ONE) // piece)

    async def ask(self, request: Coroutine[Any, Any, T]) -> T:
        """Wait for the answer to a request, as long as the server says anything. It is sent at once: before
        what was given to ``send`` in the same turn."""
        if not self._waiting:
            self._heard = asyncio.get_running_loop().time()
        self._waiting += 1
        try:
            return await request
        except _LOSSES as error:
            if not self._lost:  # perhaps the session alone: nothing more comes of this connection
                self.cut()
            raise Lost(f"{self._reach.shown}: {self._why()}") from error
        finally:
            self._waiting -= 1
            self._heard = asyncio.get_running_loop().time()

    def send(self, request: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Send a request behind those that were sent so before; nobody has to look at its answer."""
        return asyncio.create_task(self.ask(request))

    def close_handle(self, handle: bytes) -> None:
        """Without waiting for it."""
        self.send(self.sftp.close(handle))

    def cut(self) -> None:
        self._lost = True
        self._watch.cancel()
        self._connection.abort()

    async def close(self) -> None:
        self._watch.cancel()
        self._connection.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._connection.wait_closed()

    def _why(self) -> str:
        return f"it said nothing for {self._stall_s:g} s" if self._silent else "the connection was lost"

    async def _watching(self) -> None:
        """Cut a connection whose server keeps us waiting in silence; asyncssh's keepalive sees only that the
        SSH part of it is alive, not that files are served."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._stall_s / 8)
            if self._waiting and now() - self._heard > self._stall_s:
                self._silent = True
                self.cut()

    async def _look_around(self) -> None:
        """Where the site begins, and where the account is at home."""
        base = self._reach.path.encode("utf-8", "surrogateescape") or b"."
        home, begin = (self.send(self.real(path)) for path in (b".", base))
        try:
            self.home = await home
            self.base = await begin
        except asyncssh.SFTPError as error:
            failed = translated(error, base)
            raise StorageFailed(
                f"{self._reach.shown}: where the site begins: {failed.message}", failed.trouble
            ) from error

    async def real(self, path: bytes) -> bytes:
        """A path without links; "." is the account's home."""
        names, _ = await self.sftp.realpath(path)
        found = names[0].filename
        return found if isinstance(found, bytes) else found.encode()
