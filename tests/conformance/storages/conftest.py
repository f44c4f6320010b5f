"""Fixtures of the tests of storages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.storages.subjects import Source


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "file")
