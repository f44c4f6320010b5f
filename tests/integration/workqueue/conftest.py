"""A scene for each test, and the books balanced at the end of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.workqueue.scene import Scene, assert_books


@pytest.fixture
def scene(db: None, settings: Any) -> Iterator[Scene]:
    """Elements are tried again at once."""
    settings.GANTRY_TRANSFER_RETRY_BASE_S = 0.0
    yield Scene()
    assert_books()
