"""The audit log: who changed what, through which route, and how it was answered.

A request only puts a record into a list; a thread writes what has gathered, twice a second, in one INSERT.
``flush`` writes at once: operators' calls wait for it before they answer. On a normal stop the rest is
written; of a process that is killed what its calls have changed is told all the same, without the answer
(``begun``). Decision 42. Must not import HTTP or services.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing.util
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import structlog
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection, transaction

log = structlog.get_logger(__name__)

_EVERY_S: Final = 0.5
#: Most records that wait while the database is away; beyond it the oldest are lost, which is logged.
_MOST: Final = 20_000
_BATCH: Final = 1000
_COLUMNS: Final = (
    "at", "user_name", "token_prefix", "via", "peer", "tenant_id", "tenant_name", "method", "route", "about",
    "status", "request_id",
)  # fmt: skip
#: Longest texts that columns hold.
_LONGEST: Final = (
    ("user_name", 150), ("token_prefix", 12), ("via", 8), ("peer", 64), ("method", 16), ("route", 255),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One changing call. ``about``: names and ids of things, never values that a client sent for them."""

    at: datetime
    method: str
    route: str
    status: int
    request_id: str
    user_name: str = ""
    token_prefix: str = ""
    via: str = ""
    peer: str = ""
    tenant_id: int | None = None
    tenant_name: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    #: Of the row that its change has left (``begun``), which goes with this entry.
    mark: int | None = None

    def columns(self) -> dict[str, Any]:
        """By name, cut to what the columns hold."""
        values = {name: _stored(getattr(self, name)) for name in _COLUMNS}
        for name, longest in _LONGEST:
            values[name] = values[name][:longest]
        if self.about:
            values["about"] = {_stored(name): _stored(value) for name, value in self.about.items()}
        return values

    def answered(self, at: datetime, status: int, made: dict[str, Any], mark: int | None) -> Record:
        """The same call with its end; ``made`` joins what it was about."""
        about = {**made, **self.about} if made else self.about
        return Record(
            at, self.method, self.route, status, self.request_id, self.user_name, self.token_prefix, self.via,
            self.peer, self.tenant_id, self.tenant_name, about, mark,
        )  # fmt: skip

    def row(self) -> tuple[Any, ...]:
        """In the order of ``_COLUMNS``."""
        values = self.columns()
        return tuple({**values, "about": json.dumps(values["about"])}.values())


def _stored(value: Any) -> Any:
    """A value without what no column can hold: NUL, and halves of characters."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "").encode(errors="replace").decode()


_waiting: deque[Record] = deque()
_writing: Final = threading.Lock()
_wake: Final = threading.Event()
_running = False


def note(record: Record) -> None:
    """Keep a record until it is written. Costs no query and waits for nothing."""
    if len(_waiting) >= _MOST:
        _waiting.popleft()
        log.error("audit.lost", meaning="the database does not take the audit log: the oldest entry is gone")
    _waiting.append(record)
    if not _wake.is_set():
        _wake.set()


def start() -> None:
    """Write in the background from now on, and once more when this process ends. For API processes."""
    global _running
    if _running:
        return
    _running = True
    threading.Thread(target=_write_forever, name="audit", daemon=True).start()
    atexit.register(flush)
    # The API server's processes end without atexit.
    multiprocessing.util.Finalize(None, flush, exitpriority=10)


def is_running() -> bool:
    """Does this process write its records by itself?"""
    return _running


def flush() -> bool:
    """Write everything that waits; True when nothing is left. Does not raise for a database that is away."""
    with _writing:
        while _waiting:
            batch = [_waiting[number] for number in range(min(len(_waiting), _BATCH))]
            try:
                _insert(batch)
            except (DataError, IntegrityError, ValueError):
                _insert_each(batch)
            except (DatabaseError, InterfaceError) as error:
                log.warning("audit.waits", error=str(error).strip(), waiting=len(_waiting))
                if not connection.in_atomic_block:
                    connection.close()
                return False
            written = set(map(id, batch))
            # Records may have been pushed out at the front meanwhile.
            while _waiting and id(_waiting[0]) in written:
                _waiting.popleft()
    return True


def _insert(batch: list[Record]) -> None:
    places = ", ".join(["%s"] * len(_COLUMNS))
    rows = ", ".join([f"({places})"] * len(batch))
    values = [value for record in batch for value in record.row()]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO workers_auditentry ({', '.join(_COLUMNS)}) VALUES {rows}",  # noqa: S608  our own
            values,
        )
        if marks := [record.mark for record in batch if record.mark is not None]:
            cursor.execute("DELETE FROM workers_auditbegun WHERE mark = ANY(%s)", [marks])


def _insert_each(batch: list[Record]) -> None:
    """One that the database refuses for what it says is left out, and told: it holds up no other."""
    for record in batch:
        try:
            _insert([record])
        except (DataError, IntegrityError, ValueError):
            log.exception("audit.refused", route=record.route, request_id=record.request_id)


def _write_forever() -> None:
    pid = os.getpid()
    while os.getpid() == pid:
        _wake.wait()
        time.sleep(_EVERY_S)
        _wake.clear()
        if not flush():
            time.sleep(2.0)
            _wake.set()


def prune(days: int, limit: int) -> int:
    """Delete entries older than ``days``, at most ``limit``; returns how many. 0 days: none."""
    if days <= 0:
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL gantry.pruning = 'on'")
        cursor.execute(
            """DELETE FROM workers_auditentry WHERE id IN (SELECT id FROM workers_auditentry
                   WHERE at < now() - %s * interval '1 day' ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED)""",
            [days, limit],
        )
        return int(cursor.rowcount)
