"""The few connections of a tree, and the one thread whose event loop serves them for all others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.sftp.errors import told
from workers.storage.trees.sftp.line import Line
from workers.vocabulary.transfers.reach import Reach

T = TypeVar("T")

#: Files at once on one connection: its server waits for its disk at the end of each, for one after the other.
PER_LINE: Final = 4


class _Slot:
    """A place for a connection: made when it is needed, made anew when it was lost."""

    def __init__(self) -> None:
        self.asked = 0
        self._line: Line | None = None
        self._coming: asyncio.Task[Line] | None = None

    @property
    def load(self) -> int:
        """Who uses it now."""
        return self.asked + (self._line.files if self._line is not None else 0)

    async def line(self, reach: Reach, stall_s: float) -> Line:
        """Whoever asks while it is being made waits for the same."""
        if self._line is not None and not self._line.lost:
            return self._line
        if self._coming is None:
            self._coming = asyncio.create_task(Line.connect(reach, stall_s))
            self._coming.add_done_callback(self._came)
        return await asyncio.shield(self._coming)

    def _came(self, task: asyncio.Task[Line]) -> None:
        self._coming = None
        if not task.cancelled() and task.exception() is None:
            self._line = task.result()

    async def close(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
        if self._line is not None:
            await self._line.close()


class Lines:
    """Used by all threads: ``do`` waits for what the loop's thread does."""

    def __init__(self, reach: Reach, streams: int, stall_s: float) -> None:
        self._reach = reach
        self._stall_s = stall_s
        self._slots = [_Slot() for _ in range(max(1, -(-streams // PER_LINE)))]
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended: asyncio.Event | None = None
        self._closed = False

    def do(self, path: bytes, work: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
        """Have it done on the connection that has least to do. Raises StorageFailed that names ``path``."""
        loop = self._running()
        return self._given(path, self._doing(work), loop)

    def then(self, path: bytes, work: Coroutine[Any, Any, T]) -> T:
        """Go on with what ``do`` began, on whatever connection that was."""
        return self._given(path, work, self._loop)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """The same without waiting for it."""
        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError("nothing has begun")
            asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # its loop has ended, and with it all that was open
            work.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loop, thread, ended = self._loop, self._thread, self._ended
        if loop is not None and thread is not None and ended is not None:
            with suppress(RuntimeError):  # closed twice
                loop.call_soon_threadsafe(ended.set)
            thread.join()

    def _given(self, path: bytes, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop | None) -> T:
        try:
            if loop is None:
                raise RuntimeError("nothing has begun")
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # its loop has ended
            work.close()
            raise self._closed_failure() from None
        try:
            with told(path):
                return future.result()
        except CancelledError:  # its loop ended meanwhile
            raise self._closed_failure() from None

    def _closed_failure(self) -> StorageFailed:
        return StorageFailed(f"{self._reach.shown}: its tree has been closed", Trouble.AWAY)

    async def _doing(self, work: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
        slot = min(self._slots, key=lambda found: found.load)
        slot.asked += 1
        try:
            line = await slot.line(self._reach, self._stall_s)
            return await work(line)
        finally:
            slot.asked -= 1

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise self._closed_failure()
            if self._loop is None:
                ready: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(
                    target=lambda: asyncio.run(self._serve(ready)), name="sftp", daemon=True
                )
                self._thread.start()
                self._loop = ready.result()
            return self._loop

    async def _serve(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        self._ended = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(_unheard)
        ready.set_result(asyncio.get_running_loop())
        await self._ended.wait()
        await asyncio.gather(*(slot.close() for slot in self._slots), return_exceptions=True)


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Answers that nobody looked at (of what came behind a request that failed, of closing) are no news."""
    if "never retrieved" not in context["message"]:
        loop.default_exception_handler(context)
