"""The embedded servers of a test, in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.local.servers import EmbeddedPostgres, EmbeddedRedis


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (a unix socket's address has 108 bytes), open to others: servers close theirs."""
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    path.chmod(0o755)
    yield path
    for server in (EmbeddedPostgres(path / "pg"), EmbeddedRedis(path / "redis")):
        server.stop("immediate")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """A folder after initdb, for copies: initdb takes longer than most tests."""
    path = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    server = EmbeddedPostgres(path / "pg")
    server.start()
    server.stop()
    yield path / "pg"
    shutil.rmtree(path)


@pytest.fixture
def postgres(folder: Path, initialised: Path) -> EmbeddedPostgres:
    shutil.copytree(initialised, folder / "pg")
    server = EmbeddedPostgres(folder / "pg")
    server.start()
    return server


@pytest.fixture
def cache(folder: Path) -> EmbeddedRedis:
    server = EmbeddedRedis(folder / "redis")
    server.start()
    return server
