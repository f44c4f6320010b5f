"""A test's own time limit grows with the waits in it: else it is cut off before a wait says what it saw."""

from __future__ import annotations

import pytest

from tests.support.waiting import limit


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-timeout reads it."""
    if config.option.timeout is None:
        config.option.timeout = limit(float(config.getini("timeout")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark = item.get_closest_marker("timeout")
        if mark is not None and mark.args:
            item.add_marker(pytest.mark.timeout(limit(mark.args[0])), append=False)
