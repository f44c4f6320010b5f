"""Fixtures: Docker Engines, started once per test process and cleaned after each test.

Name them before ``cluster`` in a test's arguments: fixtures end in reverse order, and nodes must be gone
before their engine is cleaned.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.engines import Engine
from tests.support.session import SESSION
from workers.runtimes.engine.client import Address
from workers.runtimes.engine.client import Engine as Client

_numbers = itertools.count(1)


class Engines:
    """The engines of this test process, each started when it is first asked for."""

    def __init__(self) -> None:
        self._there: dict[str, Engine] = {}

    def get(self, name: str) -> Engine:
        """A running engine without containers, with the images of ``tests.support.images``."""
        found = self._there.get(name)
        if found is not None and not (found.running and found.answers()):
            found.stop()
            found = None
        if found is None:
            found = self._there[name] = start(name)
        found.clean()
        return found

    def stop(self) -> None:
        for engine in self._there.values():
            engine.stop()


def start(name: str) -> Engine:
    """A fresh engine with images."""
    engine = Engine(SESSION / f"engine-{name}", name)
    try:
        engine.start()
        images.load(engine)
    except BaseException:
        engine.stop()
        raise
    return engine


@pytest.fixture(scope="session")
def session_engines() -> Iterator[Engines]:
    """Not for tests: the others below take theirs from here."""
    engines = Engines()
    yield engines
    engines.stop()


@pytest.fixture
def engine(session_engines: Engines) -> Iterator[Engine]:
    """A Docker Engine with images and without containers. Do not kill it: ``mortal_engine`` is for that."""
    found = session_engines.get("a")
    yield found
    found.clean()


@pytest.fixture
def link(engine: Engine) -> Iterator[Client]:
    """How a node speaks to that engine."""
    found = Client(Address.parse(engine.url))
    yield found
    found.close()


@pytest.fixture
def engines(session_engines: Engines) -> Iterator[tuple[Engine, Engine]]:
    """Two of them, for two nodes."""
    found = session_engines.get("a"), session_engines.get("b")
    yield found
    for each in found:
        each.clean()


@pytest.fixture
def mortal_engine() -> Iterator[Engine]:
    """A fresh engine of the test's own, to be killed, frozen and restarted at will."""
    engine = start(f"m{next(_numbers)}")
    yield engine
    engine.stop()
