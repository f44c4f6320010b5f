"""A journal of what commits change, for tests: which rows, in which transaction, called by whom.

A trigger writes it. Conflicting transactions hold the type's lock or the queue's row before they change
anything, until they commit: so the order of the serials is the order of commits for whatever conflicts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection

TABLES = (
    *("queues_entry", "queues_hostresource", "queues_aggregate", "queues_ownerholding", "queues_booking"),
    "workers_callback",
)
#: The marker of a look, which is in the journal although it may have changed nothing.
LOOK = "look"
_MAKE = """
    CREATE TABLE test_journal (serial bigserial PRIMARY KEY, txid bigint NOT NULL DEFAULT txid_current(),
        what text NOT NULL, old jsonb, new jsonb,
        call jsonb DEFAULT nullif(current_setting('test.call', true), '')::jsonb);
    CREATE FUNCTION test_journal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO test_journal (what, old, new) VALUES (TG_TABLE_NAME, to_jsonb(OLD), to_jsonb(NEW));
        RETURN NULL;
    END $$;
"""
_TRIGGER = """
    CREATE TRIGGER test_journal AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION test_journal();
"""
#: What takes a type's lock alone, and the marker of who has it now: who only tries may not.
_ALONE = ("SELECT pg_advisory_xact_lock(", "SELECT pg_try_advisory_xact_lock(%s, hashtext(")
_NOTE = """
    INSERT INTO test_journal (what) SELECT %s WHERE EXISTS (
        SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
            AND objsubid = 2 AND pid = pg_backend_pid())
"""
_DROP = "DROP TABLE test_journal; DROP FUNCTION test_journal() CASCADE;"


@dataclass(frozen=True)
class Row:
    """A row as it was and as it is; None = it was or is not there."""

    serial: int
    txid: int
    what: str
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    call: dict[str, Any]


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the journal inside the block."""
    with connection.cursor() as cursor:
        cursor.execute(_MAKE + "".join(_TRIGGER.format(table=table) for table in TABLES))
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(_DROP)


def calls(**call: Any) -> None:
    """What this thread's connection does from now on is this call's."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('test.call', %s, false)", [json.dumps(call)])


def note_looks(begun: Callable[[], object]) -> Callable[..., Any]:
    """An execute_wrapper for whoever looks: each look, once it has the lock, is in the journal."""

    def execute(run: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        found = run(sql, params, many, context)
        if sql.startswith(_ALONE):
            with context["connection"].cursor() as cursor:
                cursor.execute(_NOTE, [LOOK])
                if cursor.rowcount:
                    begun()
        return found

    return execute


def rows() -> list[Row]:
    """All of it, in the order of the serials."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT serial, txid, what, old, new, call FROM test_journal ORDER BY serial")
        return [
            Row(serial, txid, what, _json(old), _json(new), _json(call) or {})
            for serial, txid, what, old, new, call in cursor.fetchall()
        ]


def commits(found: list[Row]) -> list[list[Row]]:
    """The rows of each transaction, in the order of their first ones."""
    by_txid: dict[int, list[Row]] = {}
    for row in found:
        by_txid.setdefault(row.txid, []).append(row)
    return list(by_txid.values())


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else dict(json.loads(text))
