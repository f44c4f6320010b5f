"""The database after a test that commits, as the next one finds it (tests.support.emptying)."""

from __future__ import annotations

import threading

import psycopg2
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.db.utils import DatabaseError
from django.utils.timezone import now

from tests.integration.engine_rows import World
from tests.support import emptying
from tests.support.cluster import test_database_url
from tests.support.fixtures import make_account
from tests.support.waiting import limit, wait_until
from workers.models import AuditEntry, Run

pytestmark = pytest.mark.django_db(transaction=True)


def rows() -> dict[str, int]:
    """Table -> rows, of those that have some."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT count(*) FROM {table}")
            found[table] = (cursor.fetchone() or (0,))[0]
    return {table: count for table, count in found.items() if count and table != "django_migrations"}


def audited() -> AuditEntry:
    return AuditEntry.objects.create(at=now(), method="POST", route="r", status=200, request_id="x")


@pytest.fixture
def filled() -> None:
    """Rows of which some refer to others, run into triggers, or are many."""
    make_account("default")
    Group.objects.create(name="some").permissions.add(*Permission.objects.all()[:3])
    World().submit()
    audited()
    User.objects.bulk_create(User(username=f"u{number}") for number in range(emptying.MANY + 5))


def test_what_is_left_is_what_a_flush_leaves(filled: None) -> None:
    """Catches: rows that a trigger brings back or keeps, permissions lost, a table that nobody looked at."""
    kept = [*ContentType.objects.order_by("id").values(), *Permission.objects.order_by("id").values()]
    assert {"workers_run", "workers_tenantload", "workers_auditentry", "auth_user"} <= {*rows()}
    emptying.empty()
    after = rows()
    assert after.keys() == emptying.KEPT
    assert kept == [*ContentType.objects.order_by("id").values(), *Permission.objects.order_by("id").values()]
    call_command("flush", verbosity=0, interactive=False, reset_sequences=False)
    assert rows() == after
    ContentType.objects.clear_cache()


def test_triggers_are_in_force_again(filled: None) -> None:
    emptying.empty()
    entry = audited()
    with pytest.raises(DatabaseError, match="append only"):
        entry.delete()
    World().submit()
    assert "workers_tenantload" in rows()


def test_ids_are_not_given_again() -> None:
    """As after a flush: who remembers an id of another test's row must not find one of this test's."""
    World().submit()
    before = Run.objects.get().pk
    emptying.empty()
    World().submit()
    assert Run.objects.get().pk > before


def test_who_is_still_writing_is_waited_for() -> None:
    """Catches: a row that a node's last statement commits after its table was found empty."""
    writer = psycopg2.connect(test_database_url())
    with writer.cursor() as cursor:
        cursor.execute("INSERT INTO auth_group (name) VALUES ('late')")
    emptied = threading.Thread(target=empty_and_leave)
    emptied.start()
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock' AND relation > 0"

    def waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(waits)
            return bool((cursor.fetchone() or (0,))[0])

    wait_until(waiting, why="it waits for the writer")
    writer.commit()
    writer.close()
    emptied.join(limit(60))
    assert rows().keys() == emptying.KEPT


def empty_and_leave() -> None:
    try:
        emptying.empty()
    finally:
        connection.close()
