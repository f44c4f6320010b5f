"""How the database is emptied after a test that commits: what has rows, and nothing else.

Django's own way truncates every table and makes content types and permissions anew: files are created and
removed for each table and each index, some tenths of a second for every test.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import TransactionTestCase

#: Made by ``migrate``, the same for every test.
KEPT: Final = frozenset({"django_content_type", "auth_permission"})
#: From so many rows on a table is truncated: each row deleted costs a look at what refers to it.
MANY: Final = 1000


def install() -> None:
    """From now on tests that commit empty the database this way."""
    TransactionTestCase._fixture_teardown = _after_test  # type: ignore[attr-defined]


def _after_test(_: Any) -> None:
    empty()


def empty() -> None:
    """Every table but those of content types and permissions; sequences go on: as Django's flush."""
    with transaction.atomic(), connection.cursor() as cursor:
        # TRUNCATE would wait, too: for the last statement of a node that was killed.
        cursor.execute(f"LOCK TABLE {', '.join(_tables())} IN EXCLUSIVE MODE")
        cursor.execute(_question())
        found: dict[str, bool] = dict(cursor.fetchall())
        if large := [table for table, many in found.items() if many]:
            cursor.execute(f"TRUNCATE {', '.join(large)} CASCADE")
        _delete(cursor, [table for table, many in found.items() if not many])


def _delete(cursor: CursorWrapper, tables: list[str]) -> None:
    """In any order: foreign keys are checked at the commit, when nothing is left that could refer.

    Triggers of ours would forbid it (the audit log stays) or write into a table that is empty already.
    """
    triggered = [table for table in tables if table in _triggered()]
    statements = [
        *(f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in triggered),
        *(f"DELETE FROM {table}" for table in tables),
        # No statement may come upon checks that are still to be made.
        *(["SET CONSTRAINTS ALL IMMEDIATE"] if triggered else []),
        *(f"ALTER TABLE {table} ENABLE TRIGGER USER" for table in triggered),
    ]
    if statements:
        cursor.execute("; ".join(statements))


@cache
def _tables() -> list[str]:
    return sorted(
        {*connection.introspection.django_table_names(only_existing=True, include_views=False)} - KEPT
    )


@cache
def _question() -> str:
    """Which tables have rows, and have they many."""
    return " UNION ALL ".join(
        f"SELECT '{table}', EXISTS (SELECT 1 FROM {table} OFFSET {MANY}) WHERE EXISTS (SELECT 1 FROM {table})"
        for table in _tables()
    )


@cache
def _triggered() -> frozenset[str]:
    """Those with triggers of ours on DELETE (tgtype has a bit for each event: 8)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 8 > 0"
        )
        return frozenset(table for (table,) in cursor.fetchall())
