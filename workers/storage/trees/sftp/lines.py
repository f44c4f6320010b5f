"""The few connections of a tree, and the one thread whose event loop serves them for all others."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from workers.storage.trees.base import StorageFailed, Trouble
from workers.storage.trees.sftp.errors import told
from workers.storage.trees.sftp.line import Line
from workers.vocabulary.transfers.reach import Reach

T = TypeVar("T")

#: Files at once on one connection. More connections are not faster: our one thread serves them all.
PER_LINE: Final = 8


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
        self._inbox: deque[tuple[Coroutine[Any, Any, Any], Future[Any]]] = deque()
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, path: bytes, work: Callable[[Line], Coroutine[Any, Any, T]]) -> T:
        """Have it done on the connection that has least to do. Raises StorageFailed that names ``path``."""
        self._start()
        return self.then(path, self._doing(work))

    def then(self, path: bytes, work: Coroutine[Any, Any, T]) -> T:
        """Go on with what ``do`` began, on whatever connection that was."""
        future: Future[T] = Future()
        self._put(work, future)
        with told(path):
            return future.result()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """The same without waiting for it."""
        self._put(work, Future())

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loop, thread, ended = self._loop, self._thread, self._ended
        if loop is not None and thread is not None and ended is not None:
            with suppress(RuntimeError):  # closed twice
                loop.call_soon_threadsafe(ended.set)
            thread.join()
            self._woken = False
            self._refuse_all()

    def _put(self, work: Coroutine[Any, Any, T], future: Future[T]) -> None:
        """Hand it to the loop's thread, which is woken once for all that is handed over until it looks."""
        self._inbox.append((work, future))
        if not self._woken:
            self._woken = True
            try:
                if self._loop is None:
                    raise RuntimeError("nothing has begun")
                self._loop.call_soon_threadsafe(self._look)
            except RuntimeError:  # its loop has ended
                self._woken = False
                self._refuse_all()

    def _look(self) -> None:
        self._woken = False
        while self._inbox:
            work, future = self._inbox.popleft()
            task = asyncio.get_running_loop().create_task(self._done(work, future))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _done(self, work: Coroutine[Any, Any, T], future: Future[T]) -> None:
        try:
            future.set_result(await work)
        except asyncio.CancelledError:  # the loop ends
            future.set_exception(self._closed_failure())
        except BaseException as error:  # noqa: BLE001 - it is whoever waits for it who hears of it
            future.set_exception(error)

    def _refuse_all(self) -> None:
        with suppress(IndexError):
            while True:
                work, future = self._inbox.popleft()
                work.close()
                future.set_exception(self._closed_failure())

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

    def _start(self) -> None:
        if self._loop is not None:
            return
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
