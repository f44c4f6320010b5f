"""Fixtures: providers of capacity. Keystone and Placement start once per test process, when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.session import SESSION

if TYPE_CHECKING:
    from tests.support.capacity import Subject
    from tests.support.openstack import Cloud


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A real Keystone and a real Placement."""
    from tests.support import openstack

    made = openstack.Cloud(SESSION / "cloud")
    yield made
    made.stop()


@pytest.fixture
def subject(request: pytest.FixtureRequest, settings: Any, transactional_db: None) -> Iterator[Subject]:
    """The provider that the test is parametrized with, empty, and open to it."""
    from tests.support import capacity
    from tests.support.waiting import limit

    settings.GANTRY_QUEUE_ALLOW_NETWORKS = ["127.0.0.1/32"]
    settings.GANTRY_QUEUE_PROVIDER_S = limit(60.0)
    cloud = request.getfixturevalue("cloud") if request.param == "placement" else None
    with capacity.subject(request.param, cloud) as made:
        yield made
