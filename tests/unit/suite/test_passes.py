"""In which pass a test is, and how often it is asked again: by what it uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.passes import ALONE, DAEMONS, FAULTS, FOLDERS, PURE, again_of, pass_of

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("folders", "fixtures", "markers", "number"),
    [
        ("tests/unit", "tmp_path", "", PURE),
        ("tests/integration", "db account", "django_db", PURE),
        ("tests/contracts/tasks", "stage", "", PURE),
        ("tests/integration", "db cluster", "", DAEMONS),
        ("tests/integration/engine", "engine", "", DAEMONS),
        ("tests/integration", "mortal_engine", "", DAEMONS),
        ("tests/integration/embedded", "folder", "daemons", DAEMONS),
        ("tests/acceptance", "db", "", DAEMONS),
        ("tests/deployment", "", "", DAEMONS),
        ("tests/faults", "cluster", "", FAULTS),
        ("tests/faults/machine", "", "daemons", FAULTS),
        ("tests/faults", "cluster", "alone", ALONE),
        ("tests/unit", "", "alone", ALONE),
    ],
)
def test_the_pass_follows_from_folder_fixtures_and_marker(
    folders: str, fixtures: str, markers: str, number: int
) -> None:
    assert pass_of(folders.split("/"), fixtures.split(), markers.split()) == number


@pytest.mark.parametrize(
    ("number", "folders", "markers", "invariants", "times"),
    [
        (PURE, "tests/unit", "", False, 1),
        (DAEMONS, "tests/acceptance", "", False, 1),
        (PURE, "tests/contracts/jobs", "", False, 5),
        (PURE, "tests/security", "", False, 5),
        (FAULTS, "tests/faults", "", False, 5),
        (ALONE, "tests/integration", "alone", False, 5),
        (PURE, "tests/integration", "invariant", False, 5),
        (DAEMONS, "tests/acceptance", "", True, 5),
    ],
)
def test_a_promise_is_asked_five_times(
    number: int, folders: str, markers: str, invariants: bool, times: int
) -> None:
    assert again_of(number, folders.split("/"), markers.split(), invariants=invariants) == times


def test_every_folder_with_tests_is_known() -> None:
    """Catches a new folder that nobody has given a place."""
    found = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert found <= set(FOLDERS)


def test_the_marker_of_an_account_is_where_ci_looks_for_it() -> None:
    """Catches one that is given elsewhere: .ci/run collects no file but those of tests that name it."""
    words = "mark" + ".account"
    naming = [path for path in TESTS.rglob("*.py") if words in path.read_text()]
    assert naming
    assert all(path.name.startswith("test_") for path in naming)
