"""``python -m tests.bench.relay PORT UPSTREAM``: a port in front of a server, on a wire of two lengths.

After SIGUSR2 every piece of a reply comes 2 ms later, without holding up the next one: so every question
takes 2 ms more, however many are on their way. After SIGUSR1 it comes at once, as at the beginning. A process
of its own, so that neither side's interpreter does its work. UPSTREAM: ``host:port`` or a unix socket's path.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from typing import Final

DELAY_S: Final = 0.002


class Wire:
    """How long the replies of all connections take at the moment."""

    def __init__(self) -> None:
        self.delay_s = 0.0


class Side(asyncio.Protocol):
    """One end of one connection; what it hears goes to ``other``, in order."""

    def __init__(self, wire: Wire | None, other: asyncio.Transport | None = None) -> None:
        self._wire = wire
        self._late: deque[bytes | None] = deque()
        self.other = other
        self.own: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.own = transport

    def data_received(self, data: bytes) -> None:
        self._pass(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass(None)

    def _pass(self, data: bytes | None) -> None:
        delay_s = self._wire.delay_s if self._wire else 0.0
        self._late.append(data)
        if delay_s or len(self._late) > 1:  # behind one that is late, all are
            asyncio.get_running_loop().call_later(delay_s, self._arrive)
        else:
            self._arrive()

    def _arrive(self) -> None:
        data = self._late.popleft()
        if self.other is None or self.other.is_closing():
            return
        if data is None:
            self.other.close()
        else:
            self.other.write(data)


class Client(Side):
    """A connection that was accepted; it is read once its server is there."""

    def __init__(self, wire: Wire, upstream: str) -> None:
        super().__init__(None)
        self._replies = Side(wire)
        self._upstream = upstream
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joining = asyncio.get_running_loop().create_task(self._join())

    async def _join(self) -> None:
        assert self.own is not None
        self.own.pause_reading()
        self._replies.other = self.own
        loop = asyncio.get_running_loop()
        host, _, port = self._upstream.rpartition(":")
        try:
            if self._upstream.startswith("/"):
                await loop.create_unix_connection(lambda: self._replies, self._upstream)
            else:
                await loop.create_connection(lambda: self._replies, host, int(port))
        except OSError:
            self.own.close()
            return
        self.other = self._replies.own
        self.own.resume_reading()


async def serve(port: int, upstream: str) -> None:
    """Until it is killed."""
    loop, wire = asyncio.get_running_loop(), Wire()
    loop.add_signal_handler(signal.SIGUSR1, setattr, wire, "delay_s", 0.0)
    loop.add_signal_handler(signal.SIGUSR2, setattr, wire, "delay_s", DELAY_S)
    server = await loop.create_server(lambda: Client(wire, upstream), "127.0.0.1", port)
    print("relay listens", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
