"""What a change leaves in its own commit for the audit log, before anybody knows how it will be answered.

The first statement of a request that writes takes one row more along, in the same round trip and the same
transaction: who changes what. When the entry is written, with the answer's status, the row goes. If the
process dies between the commit and the entry, the row stays, and becomes an entry without an answer (status
0) ten minutes later: whatever was committed is told. Must not import HTTP or services.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, Generic, Protocol, TypeVar

from django.db import connection

#: Long after every answer: a call whose row is that old has lost its process.
UNANSWERED_S: Final = 600.0
#: The status of an entry whose answer nobody knows.
NO_ANSWER: Final = 0
_WRITES: Final = re.compile(r"(?<!FOR )(?<!KEY )\b(INSERT|UPDATE|DELETE|MERGE)\b")
_INSERT: Final = "INSERT INTO workers_auditbegun (mark, said) VALUES (%s, %s)"


_json: Final = json.JSONEncoder(ensure_ascii=False, default=str).encode


class Told(Protocol):
    """What is to be told of a call: ``audit.Record``."""

    def columns(self) -> dict[str, Any]: ...


T = TypeVar("T", bound=Told)


@lru_cache(maxsize=2000)
def _writes(sql: str) -> bool:
    return _WRITES.search(sql) is not None


class Begun(Generic[T]):
    """An ``execute_wrapper`` around one request. ``mark`` and ``told``: of its row, once it may be there."""

    def __init__(self, tell: Callable[[], T]) -> None:
        self._tell = tell
        self._committed = False
        self.mark: int | None = None
        self.told: T | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """Every statement that this thread executes meanwhile passes here."""
        wrappers = connection.execute_wrappers
        wrappers.append(self)
        try:
            yield
        finally:
            wrappers.remove(self)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Mapping[str, Any]) -> Any:
        db = context["connection"]
        if self._committed or not _writes(sql) or self._is_there(db):
            return execute(sql, params, many, context)
        if self.mark is None or self.told is None:
            self.mark, self.told = random.getrandbits(63), self._tell()
        row = [self.mark, _json(self.told.columns())]
        if many:
            execute(_INSERT, [row], many, context)
            answer = execute(sql, params, many, context)
        else:
            # The driver sends both as one message: one transaction outside of any, too.
            first = context["cursor"].cursor.mogrify(_INSERT, row).decode()
            if params is not None:
                first = first.replace("%", "%%")
            answer = execute(f"{first}; {sql}", params, many, context)
        if db.in_atomic_block:
            db.on_commit(self._commit)
        else:
            self._committed = True
        return answer

    def _commit(self) -> None:
        self._committed = True

    def _is_there(self, db: Any) -> bool:
        """Is it in the open transaction? Django forgets what waits for a commit when that is rolled back."""
        return any(waiting == self._commit for _, waiting, _ in db.run_on_commit)


_TAKE_OVER: Final = """
    WITH gone AS (
        DELETE FROM workers_auditbegun WHERE mark IN (
            SELECT mark FROM workers_auditbegun WHERE at < now() - %s * interval '1 second'
            LIMIT %s FOR UPDATE SKIP LOCKED
        ) RETURNING said
    )
    INSERT INTO workers_auditentry (at, user_name, token_prefix, via, peer, tenant_id, tenant_name, method,
        route, about, status, request_id)
    SELECT e.at, e.user_name, e.token_prefix, e.via, e.peer, e.tenant_id, e.tenant_name, e.method,
        e.route, e.about, e.status, e.request_id
    FROM gone CROSS JOIN LATERAL jsonb_populate_record(NULL::workers_auditentry, gone.said::jsonb) e
"""


def take_over(older_s: float, limit: int) -> int:
    """Make entries of at most ``limit`` rows that are older; returns how many. Safe in several processes."""
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_OVER, [older_s, limit])
        return int(cursor.rowcount)
