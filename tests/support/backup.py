"""A backup of the test database and its restoration, with the tools and steps of docs/operations.md."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from django.db import connection

from config.local.servers import postgres_programs
from tests.support.cluster import test_database_url
from tests.support.session import POSTGRES


def dump(path: Path) -> Path:
    """pg_dump of the test database into a file."""
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={path}", f"--dbname={test_database_url()}")
    return path


def restore(path: Path) -> None:
    """Put the dump in the place of the database, whoever is connected to it."""
    name = str(connection.settings_dict["NAME"])
    connection.close()
    with contextlib.closing(POSTGRES.connect("postgres")) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}_restored"')
            url = test_database_url().rsplit("/", 1)[0] + f"/{name}_restored"
            _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", str(path))
            cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
            cursor.execute(f'ALTER DATABASE "{name}_restored" RENAME TO "{name}"')
    connection.close()


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [postgres_programs() / program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program}: {done.stderr}"
