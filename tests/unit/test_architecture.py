"""docs/architecture.md against the house: its rooms are the folders, in the order of the import contracts."""

from __future__ import annotations

import re

import pytest

from tests.tools.rooms import PROJECT, Room, circles, main, order, upwards

PAGE = (PROJECT / "docs" / "architecture.md").read_text()
#: Beside the rooms: the app itself and its migrations.
_NO_ROOMS = {"workers/apps.py", "workers/migrations/", "workers/__init__.py"}


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading begins so."""
    table = PAGE[PAGE.index(f"| {heading}") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def _spelt(name: str) -> str:
    path = name.replace(".", "/")
    return f"{path}/" if (PROJECT / path).is_dir() else f"{path}.py"


def test_the_rooms_of_the_page_are_those_of_the_contracts_in_their_order() -> None:
    told = [[name.strip() for name in cells[0].split(",")] for cells in _rows("room")]
    assert told == [[_spelt(name) for name in names] for names in order()]


def test_every_folder_and_module_of_the_engine_is_a_room() -> None:
    told = {name.strip() for cells in _rows("room") for name in cells[0].split(",")}
    there = {
        f"workers/{path.name}{'/' if path.is_dir() else ''}"
        for path in (PROJECT / "workers").iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    }
    assert there - _NO_ROOMS == {name for name in told if name.startswith("workers/")}


def test_tests_follow_the_rooms() -> None:
    rooms = {name.rpartition(".")[2] for names in order() for name in names}
    for kind, beside in (("unit", {"support", "suite"}), ("integration", {"embedded"})):
        folders = {path.parent.name for path in (PROJECT / "tests" / kind).glob("*/*.py")}
        assert folders - beside <= rooms, kind


def test_no_room_is_crowded() -> None:
    """A dozen modules beside the package itself; the launcher's files are one program."""
    folders = {PROJECT / "config", PROJECT / "config" / "http"}
    folders |= {path.parent for path in (PROJECT / "workers").glob("**/*.py")}
    for folder in folders:
        if folder.name not in ("launcher", "migrations", "commands"):
            crowd = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(crowd) <= 12, (folder.name, crowd)


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"\b(?:config|tasks_api|jobs|workers|tests|docs)/[\w/]+(?:\.py|\.md)", PAGE):
        assert (PROJECT / name).is_file(), name


def test_every_room_says_what_it_is_for() -> None:
    for name in (name for names in order() for name in names if name.startswith("workers.")):
        path = PROJECT / name.replace(".", "/")
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert text.startswith('"""'), name


def test_no_circle_and_no_arrow_upwards(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    said = capsys.readouterr().out
    assert said.endswith("no circle, no arrow upwards\n")
    assert re.search(r"^workers\.vocabulary +\d+ +\d+  -$", said, re.MULTILINE), said


def test_a_circle_and_an_arrow_upwards_are_seen() -> None:
    def room(name: str, level: int, *uses: str) -> Room:
        return Room(name, level, 1, 1, uses)

    house = [room("a", 0, "b"), room("b", 1, "c"), room("c", 2, "a"), room("d", 3, "e"), room("e", 3)]
    assert list(upwards(house)) == ["c -> a", "d -> e"]
    assert list(circles(house)) == ["a -> b -> c -> a"]
