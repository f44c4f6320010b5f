"""A request's body with a time limit: a client that stops sending must not hold a thread of the API.

The server's body has no limit of its own and cannot be interrupted, so that it is read by a thread of a pool
for which the request waits as long as it may. A reader stays with a silent client until that one hangs up;
there are so many readers at most, then requests with bodies are refused at once. Docs: decision 43.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

#: Readers that are kept when nothing is to be read.
_IDLE_MOST = 16


class BodyTooSlow(TimeoutError):
    """The body did not come in time. An OSError, as every failure to read a body is."""


class NoReaders(OSError):
    """Every reader waits for a silent client."""


@dataclass
class _Job:
    work: Callable[[], bytes]
    done: threading.Lock = field(default_factory=threading.Lock)
    result: bytes | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.done.acquire()


class Readers:
    """Threads that read; grown as needed, bounded."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0

    def read(self, work: Callable[[], bytes], seconds: float) -> bytes:
        """What ``work`` returns. Raises what it raises, BodyTooSlow or NoReaders."""
        job = _Job(work)
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif self._threads >= settings.GANTRY_BODY_READERS:
                raise NoReaders("too many clients are slow to send their bodies")
            else:
                self._threads += 1
                threading.Thread(target=self._serve, name="body", daemon=True).start()
        self._jobs.put(job)
        if not job.done.acquire(timeout=max(0.0, seconds)):
            raise BodyTooSlow("the body did not come in time")
        if job.error is not None:
            raise job.error
        return job.result or b""

    def _serve(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            try:
                job.result = job.work()
            except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to the request
                job.error = error
            with self._lock:
                surplus = self._threads - self._free > 0 and self._free >= _IDLE_MOST
                if surplus:
                    self._threads -= 1
                else:
                    self._free += 1
            job.done.release()
            if surplus:
                return


_readers = Readers()


class TimedBody:
    """In the place of ``wsgi.input``: the same reads, all of them within one time limit."""

    def __init__(self, body: Any, seconds: float) -> None:
        self._body = body
        self._seconds = seconds
        self._end: float | None = None

    def _within(self, work: Callable[[], bytes]) -> bytes:
        if self._end is None:
            self._end = time.monotonic() + self._seconds
        return _readers.read(work, self._end - time.monotonic())

    def read(self, size: int = -1) -> bytes:
        return self._within(lambda: self._body.read() if size < 0 else self._body.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._within(lambda: self._body.readline() if size < 0 else self._body.readline(size))

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self.read().splitlines(keepends=True)

    def __iter__(self) -> Iterable[bytes]:
        while line := self.readline():
            yield line


def timed(environ: dict[str, Any]) -> None:
    """Put the time limit on the body of this request, if it may have one."""
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        environ["wsgi.input"] = TimedBody(environ["wsgi.input"], settings.GANTRY_BODY_S)
