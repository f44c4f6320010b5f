"""Hooks of the whole suite; servers are in tests.support.session, fixtures in tests.support.fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import emptying

pytest_plugins = [
    "tests.support.passes",
    "tests.support.patience",
    "tests.support.fixtures",
    "tests.support.engine_fixtures",
    "tests.support.capacity_fixtures",
    "tests.support.swift_fixtures",
]

# A machine that is busy takes its time for an example: that says nothing about what is tested. Examples are
# other ones every day, also in CI: tests.tools.run gives the seed.
settings.register_profile(
    "patient", settings(), deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

emptying.install()


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The database dies with its server; dropping it first would only wait for pooled connections."""
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI nothing may be skipped: a skip is a failure there."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
