"""Which tests run beside which, and how often a failed one is asked again: the only place that says so.

A pytest plugin that knows nothing of Django. Decided by what a test uses (its folder, its fixtures, a marker
where neither tells), never by a list of names. docs/testing.md explains the passes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

#: Pure functions and the database; nodes, APIs and engines; faults; what measures time, nothing beside it.
PURE, DAEMONS, FAULTS, ALONE = PASSES = (1, 2, 3, 4)

#: From quick to slow. One of these is in every test's path.
FOLDERS = (
    *("unit", "integration", "contracts", "security", "public"),
    *("conformance", "acceptance", "deployment", "faults"),
)
_WITH_DAEMONS = {"conformance", "acceptance", "deployment", "embedded"}
#: Fixtures that start a node, an API or a Docker Engine.
_STARTERS = {
    "cluster",
    "engine",
    "engines",
    "mortal_engine",
    "session_engines",
    "session_swift",
    "mortal_swift",
}
#: A failure here may be a broken promise that shows now and then: one quiet run more would prove nothing.
_PROMISES = {"faults", "contracts", "security"}
_INVARIANTS = "tests.support.invariants"


@dataclass(frozen=True)
class Place:
    """What the plan says of one test."""

    id: str
    number: int
    #: Tests of one group run on one worker as long as there is another group for each of the others.
    group: str
    #: Nobody may take tests out of the group: they share what must not be there twice.
    whole: bool
    #: How often it runs again, alone, before a failure of it counts as an accident; all must pass.
    again: int


def pass_of(folders: Iterable[str], fixtures: Iterable[str], markers: Iterable[str]) -> int:
    """The pass of a test with these folders in its path, these fixtures and these markers."""
    folders, markers = set(folders), set(markers)
    if "alone" in markers:
        return ALONE
    if "faults" in folders:
        return FAULTS
    if "daemons" in markers or folders & _WITH_DAEMONS or _STARTERS & set(fixtures):
        return DAEMONS
    return PURE


def again_of(number: int, folders: Iterable[str], markers: Iterable[str], *, invariants: bool) -> int:
    """How often a failed test is asked again; ``invariants``: its module asserts them."""
    promises = number in (FAULTS, ALONE) or _PROMISES & set(folders) or "invariant" in set(markers)
    return 5 if promises or invariants else 1


def _asserts_invariants(module: Any) -> bool:
    return any(
        _INVARIANTS in (getattr(value, "__module__", None), getattr(value, "__name__", None))
        for value in vars(module).values()
    )


def _place(item: pytest.Item) -> Place:
    markers = [mark.name for mark in item.iter_markers()]
    folders = item.path.parts
    number = pass_of(folders, getattr(item, "fixturenames", ()), markers)
    named = item.get_closest_marker("xdist_group")
    # A fault waits for its own leases, and shares nothing with its neighbours in the file.
    alone_in_group = number in (FAULTS, ALONE)
    return Place(
        id=item.nodeid,
        number=number,
        group=str(named.args[0]) if named else item.nodeid if alone_in_group else str(item.path),
        whole=named is not None,
        again=again_of(
            number, folders, markers, invariants=_asserts_invariants(getattr(item, "module", pytest))
        ),
    )


class Barrier(pytest.Item):
    """Nothing: a worker of pytest-xdist begins a test when it knows the next one, and is told this."""

    def runtest(self) -> None:
        raise AssertionError("pytest_runtest_protocol passes over it")

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


_PLAN = pytest.StashKey[list[Place]]()
_FOLDER = pytest.StashKey[Path]()


def plan(config: pytest.Config) -> list[Place]:
    """The selected tests in their order, once they have been collected, here or by a worker."""
    if (here := config.stash.get(_PLAN, None)) is not None:
        return here
    folder = config.stash.get(_FOLDER, None)
    found = sorted(folder.glob("*.json")) if folder else []
    return [Place(**entry) for entry in json.loads(found[0].read_text())] if found else []


# --- pytest's hooks -------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pass", dest="only_pass", type=int, choices=PASSES, help="only the tests of this pass")


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "daemons: starts the project's processes or servers, and neither folder nor fixtures say so",
        "alone: measures time; nothing runs beside it",
        "account: differs for an ordinary account, and .ci/run repeats it as one (docs/testing.md)",
        "invariant: fences, invariants and security outside of their folders; asked again five times",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In order of the passes; see below."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(FOLDERS) if name in item.path.parts), len(FOLDERS))

    places = {item: _place(item) for item in items}
    if (only := config.getoption("only_pass")) is not None:
        config.hook.pytest_deselected(items=[item for item in items if places[item].number != only])
        items[:] = [item for item in items if places[item].number == only]
    # Within a pass what shares a server first, then the files of the most patient tests: nobody shall begin a
    # long one when everybody else has finished.
    patience: dict[str, float] = {}
    for item, place in places.items():
        mark = item.get_closest_marker("timeout")
        patience[place.group] = max(patience.get(place.group, 0.0), mark.args[0] if mark else 0.0)
    items.sort(
        key=lambda item: (
            places[item].number,
            not places[item].whole,
            -patience[places[item].group],
            rank(item),
        )
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """The plan; in a worker of xdist for the process that hands out the tests, before it is told of them."""
    config = session.config
    places = config.stash[_PLAN] = [_place(item) for item in session.items]
    if (given := getattr(config, "workerinput", None)) is not None and places:
        session.items.append(Barrier.from_parent(session, name="barrier"))
        whole = Path(given["plan"]) / f"{given['workerid']}.json"
        part = whole.with_suffix(".part")
        part.write_text(json.dumps([asdict(place) for place in places]))
        part.rename(whole)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Nothing of a barrier is reported."""
    return True if isinstance(item, Barrier) else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Where a worker leaves the plan."""
    config: pytest.Config = node.config
    if (folder := config.stash.get(_FOLDER, None)) is None:
        folder = config.stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="gplan-"))
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    node.workerinput["plan"] = str(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> Any:
    """Ours, whatever ``--dist`` says."""
    from xdist.workermanage import parse_tx_spec_config  # type: ignore[import-untyped]

    from tests.support.scheduling import PassScheduling

    return PassScheduling(len(parse_tx_spec_config(config)), lambda: plan(config))
