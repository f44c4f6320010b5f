"""Ends the wait for a database that does not answer at all: a frozen server, a frozen host.

A statement has no limit of time on the client's side, and a frozen server keeps its connections open: every
request of the API would wait for it. So a thread looks at the borrowed connections. When one has waited for
a moment, the server is asked for a new connection; does it not even give that, what waits is cut off, and
fails as with any database that is away (503). A statement that is merely long is left alone. Must not import
the engine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg2
from psycopg2 import extensions

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
#: A statement that waits for so long is a reason to ask.
_WAITS_S: Final = 1.5
#: How long the server may take to give a new connection, in seconds.
_PATIENCE_S: Final = 2


class Watch:
    """Looks at the connections of one process that are in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: What is borrowed, and how to ask its server for another one.
        self._borrowed: dict[int, tuple[Any, Mapping[str, Any]]] = {}
        self._thread: threading.Thread | None = None
        #: How to ask a server that did not answer when it was last asked; None: it answers, as far as we
        #: know.
        self._silent: Mapping[str, Any] | None = None

    def silent(self) -> bool:
        """Did the server not answer when it was last asked, a moment ago? Then it need not be asked again."""
        return self._silent is not None

    def failed(self, error: Exception, parameters: Mapping[str, Any]) -> None:
        """A new connection could not be had."""
        if _is_silence(error):
            self._silent = parameters
            self._start()

    def borrowed(self, connection: Any, parameters: Mapping[str, Any]) -> None:
        with self._lock:
            self._borrowed[id(connection)] = (connection, parameters)
        self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="database-silence", daemon=True)
                self._thread.start()

    def returned(self, connection: Any) -> None:
        with self._lock:
            self._borrowed.pop(id(connection), None)

    def _run(self) -> None:
        since: dict[int, float] = {}
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                busy = {key: found for key, found in self._borrowed.items() if _waits(found[0])}
            now = time.monotonic()
            since = {key: since.get(key, now) for key in busy}
            waiting = [key for key, at in since.items() if now - at >= _WAITS_S]
            asked = busy[waiting[0]][1] if waiting else self._silent
            if asked is not None:
                self._silent = None if _answers(asked) else asked
                if self._silent is not None and waiting:
                    self._cut(waiting, busy)

    def _cut(self, waiting: list[int], busy: dict[int, tuple[Any, Mapping[str, Any]]]) -> None:
        logger.warning("the database does not answer: %d statements are cut off", len(waiting))
        with self._lock:
            for key in waiting:
                # Under the lock nobody closes it, so its descriptor is its own.
                if key in self._borrowed and _waits(busy[key][0]):
                    with (
                        contextlib.suppress(OSError, psycopg2.Error),
                        socket.socket(fileno=os.dup(busy[key][0].fileno())) as link,
                    ):
                        link.shutdown(socket.SHUT_RDWR)


def _waits(connection: Any) -> bool:
    """Is a statement of it under way?"""
    try:
        return not connection.closed and bool(
            connection.info.transaction_status == extensions.TRANSACTION_STATUS_ACTIVE
        )
    except psycopg2.Error:
        return False


def _answers(parameters: Mapping[str, Any]) -> bool:
    given = {**parameters, "connect_timeout": _PATIENCE_S}
    given.pop("cursor_factory", None)
    try:
        psycopg2.connect(**given).close()
    except psycopg2.OperationalError as error:
        return not _is_silence(error)
    return True


def _is_silence(error: Exception) -> bool:
    """One that refuses ("too many clients", "is starting up") is not silent."""
    return "timeout expired" in str(error)
