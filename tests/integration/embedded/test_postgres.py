"""The embedded Postgres: a real server, killed and started again, on a folder that others have touched."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from config.local.errors import LocalError
from config.local.servers import EmbeddedPostgres, postgres_programs


def query(server: EmbeddedPostgres, statement: str) -> list[tuple[Any, ...]]:
    connection = server.connect()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_durability_is_at_its_defaults(postgres: EmbeddedPostgres) -> None:
    shown = dict(query(postgres, "SELECT name, setting FROM pg_settings"))
    assert shown["fsync"] == "on"
    assert shown["synchronous_commit"] == "on"
    assert shown["full_page_writes"] == "on"
    assert shown["max_connections"] == "200"
    assert shown["listen_addresses"] == ""


def test_nobody_gets_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    host = str(postgres.folder / "run")
    for user, password in (("gantry", "wrong"), ("gantry", ""), ("postgres", postgres.password)):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(host=host, user=user, password=password, dbname="gantry")
    assert query(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    [(stored,)] = query(postgres, "SELECT current_setting('password_encryption')")
    assert stored == "scram-sha-256"


def test_names_sort_and_fold_alike_on_every_machine(postgres: EmbeddedPostgres) -> None:
    assert query(postgres, "SELECT lower('ÄÖ'), getdatabaseencoding()") == [("äö", "UTF8")]


@pytest.mark.parametrize(
    "blow", [pytest.param("kill", marks=pytest.mark.account), "immediate", "every process"]
)
def test_committed_rows_survive_a_crash(postgres: EmbeddedPostgres, blow: str) -> None:
    query(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    if blow == "kill":
        postgres.kill()
    elif blow == "immediate":
        postgres.stop("immediate")
    else:
        for pid in postgres.pids:
            with contextlib.suppress(ProcessLookupError):  # the others go when they see the first one gone
                os.kill(pid, signal.SIGKILL)

    postgres.start()

    assert query(postgres, "SELECT answer FROM kept") == [(42,)]


def test_a_stale_pid_file_that_names_a_living_stranger(postgres: EmbeddedPostgres) -> None:
    """After a power cut the number in the pid file may be anybody's: here, this test's own."""
    pid_file = postgres.folder / "data" / "postmaster.pid"
    socket_lock = postgres.folder / "run" / ".s.PGSQL.5432.lock"
    kept = {path: path.read_text() for path in (pid_file, socket_lock)}
    old = str(postgres.pid)
    postgres.stop()
    for path, text in kept.items():
        path.write_text(text.replace(old, str(os.getpid()), 1))
    assert not postgres.running

    postgres.start()

    assert postgres.pid not in (None, os.getpid())


def test_an_interrupted_initdb_is_done_again(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "pg")
    half = server.folder / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    server.start()

    assert query(server, "SELECT 1") == [(1,)]
    assert not half.exists()


def test_a_lost_password_file_is_replaced(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    old = postgres.password
    (postgres.folder / "password").unlink()

    postgres.start()

    assert postgres.password != old
    assert query(postgres, "SELECT 1") == [(1,)]


def test_a_data_folder_of_another_postgres_is_refused(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    version = postgres.folder / "data" / "PG_VERSION"
    kept = version.read_text()
    version.write_text("9\n")

    with pytest.raises(LocalError, match="of Postgres 9"):
        postgres.start()

    version.write_text(kept)
    postgres.start()


def test_a_bad_setting_is_shown_with_the_log(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    with (postgres.folder / "data" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")

    with pytest.raises(LocalError, match="no_such_setting"):
        postgres.start()


def test_the_newest_postgres_of_the_wheel_is_used() -> None:
    assert postgres_programs() == postgres_programs("18")
