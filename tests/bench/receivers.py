"""Receivers of callbacks for mark 15, a process of their own: /hang says nothing, all else 200 at once.

``python -m tests.bench.receivers PORT``. One server for every address of 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/hang " in head:
            while await reader.read(1 << 16):
                continue
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
    writer.close()


async def serve(port: int) -> None:
    """Until the parent is gone."""
    server = await asyncio.start_server(receive, "0.0.0.0", port, backlog=1024)
    parent = os.getppid()
    async with server:
        while os.getppid() == parent:
            await asyncio.sleep(1)  # pace: of looks at its parent, in a process of its own


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
