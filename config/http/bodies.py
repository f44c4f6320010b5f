"""How many bodies an API process reads at once: a client that stops sending must not hold every thread.

The server's body has no time limit and its reading cannot be interrupted or abandoned (decision 43), so that
a silent client keeps its thread until it hangs up. Therefore so many reads at once for each tenant, and so
many in all: one that harms itself harms nobody else, and what has no body always finds a thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.conf import settings

#: Bodies that may be longer than all others: whose paths look so, and the setting with their limit in MiB.
#: Their views take them in pieces.
_LONG: Final = (
    (re.compile(r"/workqueue/api/v1\.[01]/worker/jobs/[0-9]+/elements/[0-9]+"), "GANTRY_WORKER_REPORT_MB"),
)
#: Longest wait for one's turn, in seconds. An ordinary body is read in microseconds.
PATIENCE_S: Final = 2.0


def most(path: str) -> int:
    """The longest body of a request for this path, in bytes."""
    for pattern, setting in _LONG:
        if pattern.fullmatch(path):
            return int(getattr(settings, setting)) * 1024 * 1024
    return int(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


class TooManyBodies(OSError):
    """Too many clients are slow to send their bodies. An OSError, as every failure to read a body is."""


class CutBody(OSError):
    """The body ended before its Content-Length: what came is not what was meant, whoever parses it."""


class Gate:
    """Counts the reads that are under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._all = 0
        self._of: dict[str, int] = {}

    @contextmanager
    def through(self, key: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """Around a read for ``key`` (a tenant, or "" before anybody is known). TooManyBodies after a wait."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free(key), patience_s):
                raise TooManyBodies("too many clients are slow to send their bodies: send it again later")
            self._all += 1
            self._of[key] = self._of.get(key, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._all -= 1
                left = self._of.pop(key) - 1
                if left:
                    self._of[key] = left
                self._changed.notify_all()

    def _free(self, key: str) -> bool:
        most: int = settings.GANTRY_BODIES_AT_ONCE
        return self._all < most and self._of.get(key, 0) < max(1, most // 2)


_gate: Final = Gate()


class GatedBody:
    """In the place of ``wsgi.input``: the same reads, through the gate.

    The server ends a body whose connection broke like one that is whole: here it is a ``CutBody`` when
    ``length`` bytes were announced and fewer came. None: it came in chunks (``negotiation.take_chunked``).
    """

    def __init__(self, body: Any, length: int | None = None) -> None:
        self._body = body
        self._missing = length
        #: Whose turn it takes; authentication sets the tenant.
        self.key = ""

    def _read(self, work: Callable[..., Any], size: int, *, line: bool = False) -> bytes:
        if self._missing is not None:
            size = self._missing if size < 0 else min(size, self._missing)
        with _gate.through(self.key):
            data = bytes(work() if size < 0 else work(size))
        if self._missing is not None:
            self._missing -= len(data)
            if len(data) < size and not (line and data.endswith(b"\n")):
                raise CutBody("the body ended before its Content-Length: the connection was cut")
        return data

    def read(self, size: int = -1) -> bytes:
        return self._read(self._body.read, size)

    def readline(self, size: int = -1) -> bytes:
        return self._read(self._body.readline, size, line=True)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self.read().splitlines(keepends=True)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line


def gated(environ: dict[str, Any]) -> None:
    """Put the gate before the body of this request, if it may have one."""
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        length = environ.get("CONTENT_LENGTH", "")
        known = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
        environ["wsgi.input"] = GatedBody(environ["wsgi.input"], known)


def belongs_to(environ: dict[str, Any], tenant: str) -> None:
    """From now on this request's body is read in the tenant's turn."""
    body = environ.get("wsgi.input")
    if isinstance(body, GatedBody):
        body.key = tenant
