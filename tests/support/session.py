"""The servers of the session, as a pytest plugin loaded first: their addresses must be known before
Django's settings are read (``-p tests.support.session`` in pyproject.toml).

One Postgres and one Redis, real ones, that start here and die with the session. Under pytest-xdist each of
its workers has its own pair, and the process that only hands out tests has none.
"""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from config.local.servers import EmbeddedPostgres, EmbeddedRedis
from tests.support import remains

_MEMORY = Path("/dev/shm")
#: Bytes. Each worker's database takes 100 MB.
_ROOM = 4 * 2**30
#: Short, because unix sockets below it have short names.
SESSION = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
SESSION.chmod(0o711)
#: Of Postgres: in memory where there is room. A sync costs nothing there, and no test is about a power cut.
POSTGRES_FOLDER = SESSION
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM:
    POSTGRES_FOLDER = Path(tempfile.mkdtemp(prefix="gt-", dir=_MEMORY))
    POSTGRES_FOLDER.chmod(0o711)
POSTGRES = EmbeddedPostgres(POSTGRES_FOLDER / "pg")
REDIS = EmbeddedRedis(SESSION / "redis")


def _stop_servers() -> None:
    REDIS.kill()
    POSTGRES.stop("immediate")
    for folder in (SESSION, POSTGRES_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)


def _start_servers() -> None:
    remains.also(SESSION, POSTGRES_FOLDER)
    remains.end_with_me(SESSION)
    POSTGRES.start()
    REDIS.start()
    os.environ.update(
        DATABASE_URL=POSTGRES.url,
        REDIS_URL=REDIS.url,
        GANTRY_DATA_DIR=str(SESSION / "data"),
        GANTRY_SECRET_KEYS=Fernet.generate_key().decode(),
        DJANGO_SECRET_KEY=secrets.token_urlsafe(48),
        GANTRY_TOKEN_CACHE_S="0.2",
        GANTRY_REGISTRIES="any",  # the tests' own ones are on 127.x
    )


def keep_bytecode() -> None:
    """Images of containers like to set PYTHONDONTWRITEBYTECODE: every start of a node would then compile all
    of Gantry again, a quarter of what it costs, and every pytest rewrite all assertions."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


keep_bytecode()
gc.disable()  # a third of the collection of tests would look for garbage in what has just been loaded
atexit.register(_stop_servers)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """A wrapper comes before every other plugin's part, and so before Django's settings."""
    only_hands_out = (
        early_config.known_args_namespace.numprocesses and "PYTEST_XDIST_WORKER" not in os.environ
    )
    if not only_hands_out:
        _start_servers()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """The tests have been collected; none of them is ever garbage."""
    gc.freeze()
    gc.enable()
