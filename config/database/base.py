"""PostgreSQL for Django with a small pool of connections per process.

Why: a worker has dozens of threads that wait for hours and need the database for milliseconds; a new
connection costs 3.6 ms and Django's own pool is for psycopg 3. Here ``connection.close()`` gives the
connection back to the pool and the next query borrows one. And a connection that dies under a statement is
always an OperationalError, see ``ErrorWrapper``. Nothing else differs from Django's backend.
Must not import the engine.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from types import TracebackType
from typing import Any

import psycopg2
from django.db import OperationalError
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property
from psycopg2 import extensions

from config.database.silence import Watch

_idle: dict[str, deque[Any]] = {}
_lock = threading.Lock()
_slots: dict[str, threading.BoundedSemaphore] = {}
_watch = Watch()


def _alive(connection: Any) -> bool:
    """False when the server has closed the connection: then its socket is readable (costs 2 us, no query)."""
    if connection.closed:
        return False
    try:
        readable, _, _ = select.select([connection], [], [], 0)
    except (OSError, ValueError):
        return False
    return not readable


class ErrorWrapper(DatabaseErrorWrapper):
    """Django's translation of the driver's errors, with one more rule.

    When libpq reports the end of the connection as the result of a statement, psycopg2 finds no SQLSTATE in
    it and raises its base class instead of OperationalError (seen once in some thousand statements while
    connections were ended). Whoever waits for a database must not take that for a bad statement.
    """

    def __init__(self, wrapper: base.DatabaseWrapper) -> None:
        super().__init__(wrapper)
        self._connection = wrapper

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is psycopg2.DatabaseError and getattr(exc_value, "pgcode", None) is None:
            self._connection.errors_occurred = True
            raise OperationalError(str(exc_value)).with_traceback(traceback) from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class DatabaseWrapper(base.DatabaseWrapper):
    """Borrows connections from a per-process pool of OPTIONS["pool_size"] (default 12).

    OPTIONS["mind_silence"]: a server that does not answer at all holds nobody up (``silence``).
    """

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        self._pool_size = int(params.pop("pool_size", 12))
        self._mind_silence = bool(params.pop("mind_silence", False))
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        key = f"{conn_params.get('host')}:{conn_params.get('port')}/{conn_params.get('dbname')}"
        self._pool_key = key
        with _lock:
            slots = _slots.setdefault(key, threading.BoundedSemaphore(self._pool_size))
            idle = _idle.setdefault(key, deque())
        # Waiting here is bounded by the length of other threads' transactions (milliseconds each).
        if not slots.acquire(timeout=30):
            raise psycopg2.OperationalError(f"no free database connection among {self._pool_size} in 30 s")
        try:
            while True:
                try:
                    candidate = idle.pop()
                except IndexError:
                    return self._minded(self._connected(conn_params), conn_params)
                if _alive(candidate):
                    self.isolation_level = extensions.ISOLATION_LEVEL_READ_COMMITTED
                    return self._minded(candidate, conn_params)
                candidate.close()
        except BaseException:
            slots.release()
            raise

    def _connected(self, conn_params: dict[str, Any]) -> Any:
        if not self._mind_silence:
            return super().get_new_connection(conn_params)
        if _watch.silent():
            raise psycopg2.OperationalError("the database does not answer, as was found a moment ago")
        try:
            return super().get_new_connection(conn_params)
        except psycopg2.OperationalError as error:
            _watch.failed(error, conn_params)
            raise

    def _minded(self, connection: Any, conn_params: dict[str, Any]) -> Any:
        if self._mind_silence:
            _watch.borrowed(connection, conn_params)
        return connection

    def _close(self) -> None:
        connection = self.connection
        if connection is None:
            return
        _watch.returned(connection)
        key = self._pool_key
        if not connection.closed and connection.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE:
            # An open or broken transaction is never handed to the next borrower.
            try:
                connection.rollback()
            except psycopg2.Error:
                connection.close()
        if not connection.closed and not connection.autocommit:
            connection.autocommit = True
        if connection.closed:
            pass
        elif self.errors_occurred and not _alive(connection):
            connection.close()
        else:
            _idle[key].append(connection)
        _slots[key].release()

    def is_usable(self) -> bool:
        """Django's health check, without its SELECT 1."""
        return self.connection is not None and _alive(self.connection)
