"""Fixtures of the mover's tests: a subject of the trees, and a mover that works at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.mover.moving import Mover
from tests.conformance.trees.conftest import folder as folder
from tests.conformance.trees.conftest import subject as subject
from tests.conformance.trees.subjects import Subject


@pytest.fixture
def mover(subject: Subject, folder: bytes, tmp_path: Path) -> Mover:
    """From and to the site of the subject; ``folder`` is this test's own."""
    return Mover(tmp_path, subject, folder)
