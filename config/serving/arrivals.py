"""Bodies as they arrive: whole, in time, and without a thread that waits for them.

An ordinary body (1 MiB at most) has GANTRY_BODY_S seconds altogether. All that are on their way have 64 MiB
of memory: beyond that the one that has been on its way longest is given up, which is a slow one. A long one
(a pull worker's report) is read by its view, which then needs a place for long answers; it has
GANTRY_BODY_S for each piece, and a second more for every 64 KiB altogether.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as TookTooLong
from typing import Any, Final

from django.conf import settings

from config.http.bodies import CutBody, FailedBody, SlowBody
from workers.logs.aside import step_aside

Receive = Callable[[], Awaitable[Any]]

#: Memory of all bodies that are on their way, in bytes.
MEMORY: Final = 64 * 1024 * 1024
#: Bytes in a second, below which a long body is slow.
PACE: Final = 64 * 1024


class Arrivals:
    """Those of one process, on its event loop."""

    def __init__(self) -> None:
        #: In the order in which they began.
        self._held: dict[asyncio.Timeout, int] = {}
        self._all = 0

    async def whole(
        self, receive: Receive, most: int, length: int | None = None
    ) -> tuple[io.BytesIO | FailedBody, int]:
        """The body and its length in bytes: ``length`` of them, else as many as come.

        More than ``most`` when it is too long: then what came is not kept.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.GANTRY_BODY_S) as deadline:
                try:
                    while True:
                        message = await receive()
                        if message["type"] != "http.request":
                            return FailedBody(CutBody()), size + 1
                        part = message.get("body", b"")
                        parts.append(part)
                        size += len(part)
                        if size > most:
                            return io.BytesIO(), size
                        if size == length or not message.get("more_body", False):
                            return io.BytesIO(b"".join(parts)), size
                        self._hold(deadline, len(part))
                finally:
                    self._all -= self._held.pop(deadline, 0)
        except TimeoutError:
            return FailedBody(SlowBody()), size + 1

    def _hold(self, deadline: asyncio.Timeout, more: int) -> None:
        self._held[deadline] = self._held.get(deadline, 0) + more
        self._all += more
        while self._all > MEMORY and len(self._held) > 1:
            oldest = next(iter(self._held))
            self._all -= self._held.pop(oldest)
            oldest.reschedule(0.0)  # in the past: it ends now


class LongBody(io.RawIOBase):
    """One that its view reads, in a thread: piece by piece as it arrives."""

    def __init__(self, receive: Receive, length: int) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + settings.GANTRY_BODY_S + length / PACE
        self._piece = memoryview(b"")
        self._more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        step_aside()
        while not self._piece and self._more:
            self._next()
        size = min(len(buffer), len(self._piece))
        buffer[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def _next(self) -> None:
        left = min(settings.GANTRY_BODY_S, self._until - self._loop.time())
        message = asyncio.run_coroutine_threadsafe(_one(self._receive), self._loop)
        try:
            told = message.result(max(0.0, left))
        except TookTooLong:
            message.cancel()
            raise SlowBody from None
        if told["type"] != "http.request":
            raise CutBody
        self._piece = memoryview(told.get("body", b""))
        self._more = told.get("more_body", False)


async def _one(receive: Receive) -> Any:
    return await receive()
