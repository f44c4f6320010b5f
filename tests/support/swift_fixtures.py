"""Fixtures: a Swift, started once per test process that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.session import SESSION

if TYPE_CHECKING:
    from tests.support.swift import Swift


@pytest.fixture(scope="session")
def session_swift() -> Iterator[Swift]:
    """Not for tests: ``swift`` takes it from here."""
    from tests.support import swift

    made = swift.started(SESSION / "swift")
    yield made
    swift.removed(made)


@pytest.fixture
def swift(session_swift: Swift, settings: Any) -> Swift:
    """A Swift that the code here may reach; shared: use containers of your own, do not stop it."""
    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    if not session_swift.running:
        session_swift.start()
    return session_swift


@pytest.fixture
def mortal_swift(settings: Any) -> Iterator[Swift]:
    """One of the test's own, to be stopped, frozen and started again."""
    from tests.support import swift

    settings.GANTRY_SWIFT_ALLOW_NETWORKS = ["127.0.0.0/8"]
    made = swift.started(SESSION / "mortal-swift")
    yield made
    swift.removed(made)
