"""Fixtures of the mover's tests: a subject of the trees, and a mover that works at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.mover.moving import Mover
from tests.conformance.trees.conftest import folder as folder
from tests.conformance.trees.subjects import SUBJECTS, Subject

#: A local one; what differs between storages is asked of all of them (``where``).
_PARAMS: list[Any] = [pytest.param(found, id=found.id) for found in SUBJECTS if found.id == "local"]


#: What is asked of all storages CI asks of these: with and without folders, renames and resuming.
_OFTEN = ("local", "sftp", "wsgidav")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The others belong to `make test-long`."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        ids = set() if callspec is None else set(callspec.id.split("-"))
        if item.path.parent == Path(__file__).parent and ids & _RARELY:
            item.add_marker(pytest.mark.long)


_RARELY = {found.id.partition("-")[0] for found in SUBJECTS} - {name.partition("-")[0] for name in _OFTEN}


@pytest.fixture(scope="session", params=_PARAMS)
def subject(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A server that runs; one for all tests of this worker."""
    found: Subject = request.param(tmp_path_factory.mktemp(request.param.id))
    try:
        found.start()
        yield found
        found.forget_tree()
    finally:
        found.stop()


@pytest.fixture
def mover(subject: Subject, folder: bytes, tmp_path: Path) -> Iterator[Mover]:
    """From and to the site of the subject; ``folder`` is this test's own."""
    made = Mover(tmp_path, subject, folder)
    yield made
    made.close()
