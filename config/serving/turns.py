"""Turns and threads: how many requests are answered at once, and by whom.

A request has a turn from the moment when a thread begins with it until it is answered, or steps aside
(``workers.logs.aside``). Turns are counted, threads are not: a new one begins when none is idle, the
one that was busy last comes first, and one that is idle for a minute ends. So there are as many as turns
and long answers that are being made need, each with a database connection of its own while it is used.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

import structlog
from django.db import connections
from django.http import HttpRequest

from config.serving.places import Place, Places

log = structlog.get_logger("gantry.serving")

#: An idle thread ends after this, in seconds.
IDLE_S: Final = 60.0

Work = Callable[[], None]


class Threads:
    """They do one thing after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []

    def do(self, work: Work) -> None:
        """In a thread, at once. ``work`` raises nothing."""
        with self._lock:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _Thread(self)
            thread.start()
        thread.todo.put(work)

    def rests(self, thread: _Thread) -> None:
        """It has nothing to do."""
        with self._lock:
            self._idle.append(thread)

    def leaves(self, thread: _Thread) -> bool:
        """It wants to end; False when there is work for it already."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            return True


class _Thread(threading.Thread):
    def __init__(self, threads: Threads) -> None:
        super().__init__(name="answers", daemon=True)
        self._threads = threads
        self.todo: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                work = self.todo.get(timeout=IDLE_S)
            except queue.Empty:
                if self._threads.leaves(self):
                    connections.close_all()
                    return
                continue
            work()
            del work  # what it held is not kept while nothing is to do
            self._threads.rests(self)


class Turn:
    """One request on its way: whether it counts among those that are answered at once, and its long place."""

    def __init__(self, free: asyncio.Semaphore, loop: asyncio.AbstractEventLoop, places: Places) -> None:
        self._free: asyncio.Semaphore | None = free
        self._loop = loop
        self._places = places
        self.place: Place | None = None
        #: Django's, as soon as there is one.
        self.request: HttpRequest | None = None

    def take_place(self) -> None:
        """A place for a long answer, if it has none yet. Raises Unavailable."""
        if self.place is None:
            self.place = self._places.take(*self._whose())

    def step_aside(self) -> None:
        """In its thread: it takes a long place, and the next request begins. Raises Unavailable."""
        self.take_place()
        free, self._free = self._free, None
        if free is not None:
            self._loop.call_soon_threadsafe(free.release)

    def leave(self) -> None:
        """On the event loop, when its thread is done: the next one may begin."""
        free, self._free = self._free, None
        if free is not None:
            free.release()

    def end(self) -> None:
        """Nothing of it is left to do."""
        self.leave()
        if self.place is not None:
            self.place.give_back()

    def _whose(self) -> tuple[str, str]:
        identity: Any = getattr(self.request, "identity", None)
        if identity is None or self.request is None:
            return "", ""
        signed = identity.user_name == "signed-url"
        return identity.tenant_name, self.request.GET.get("signature", "") if signed else ""


class Turns:
    """``most`` requests at once, first come, first served. For one event loop, on which it is made."""

    def __init__(self, most: int, places: Places) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(most)
        self._places = places
        self._threads = Threads()
        self._here = threading.local()

    async def next(self) -> Turn:
        """Waits for one."""
        await self._free.acquire()
        return Turn(self._free, self._loop, self._places)

    def step_aside(self) -> None:
        """The request that this thread is answering, if it is."""
        turn: Turn | None = getattr(self._here, "turn", None)
        if turn is not None:
            turn.step_aside()

    async def run(self, work: Callable[[], Any], turn: Turn | None = None) -> Any:
        """``work()`` in a thread; with ``turn``, as the answer to its request. Returns and raises what it
        does."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def all_of_it() -> None:
            self._here.turn = turn
            try:
                result, error = work(), None
            except BaseException as problem:  # noqa: BLE001  whatever it is, whoever waits for it has to know
                result, error = None, problem
            self._here.turn = None
            if turn is None or turn.place is not None:
                connections.close_all()  # beside the turns nobody keeps a connection
            try:
                self._loop.call_soon_threadsafe(_tell, future, result, error)
            except RuntimeError:
                log.warning("serving.too_late", meaning="the process ends; its client has gone")

        self._threads.do(all_of_it)
        return await future


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
