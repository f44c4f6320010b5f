"""The database backend: its pool of connections, and how it tells that the database is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg2
import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from tests.support.outages import terminate_connections
from tests.support.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def _backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def _others() -> list[int]:
    """The other connections to this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT pid FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"""
        )
        return [row[0] for row in cursor.fetchall()]


def _in_threads(count: int, keep_s: float = 0.0) -> list[int]:
    """The backends that so many threads at once are given, each for that long."""
    seen: list[int] = []

    def borrow() -> None:
        seen.append(_backend())
        time.sleep(keep_s)  # pace: how long each is used
        connection.close()

    threads = [threading.Thread(target=borrow) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_a_closed_connection_is_borrowed_again() -> None:
    """Catches a new connection per use, which costs milliseconds."""
    first = _backend()
    connection.close()
    assert _backend() == first


def test_a_dead_connection_is_not_borrowed() -> None:
    """Catches the first request after an outage that fails for a connection nobody looked at."""
    _backend()  # this thread keeps its own, so that the other's is idle when they are ended
    (idle,) = _in_threads(1)
    others = _others()
    assert idle in others
    terminate_connections()
    # One that is about to end looks alive, whichever of them is borrowed.
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others), why="they have ended")
    (found,) = _in_threads(1)
    assert found not in others


def test_a_broken_transaction_is_not_handed_on() -> None:
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")
    connection.close()
    assert _backend() > 0


def test_threads_share_a_bounded_number() -> None:
    """Catches a connection per thread: the server has 200 for everybody."""
    seen = _in_threads(100, keep_s=0.5)
    assert len(seen) == 100
    assert len(set(seen)) <= connection.settings_dict["OPTIONS"]["pool_size"]


def test_a_connection_that_dies_under_a_statement_is_an_operational_error() -> None:
    """psycopg2 raises its base class where libpq gives no SQLSTATE: seen under load only, so raised here."""
    _backend()
    with pytest.raises(OperationalError, match="closed"), connection.wrap_database_errors:
        raise psycopg2.DatabaseError("server closed the connection unexpectedly")
    assert connection.errors_occurred


def test_a_refused_statement_stays_one() -> None:
    """Catches a bad statement that would be repeated for ever as if the database were away."""
    with pytest.raises(DatabaseError) as caught, connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")
    assert not isinstance(caught.value, OperationalError)
