"""docs/flaky.md: its form, and the days that each test has stood there."""

from __future__ import annotations

from datetime import date

import pytest

from tests.tools import flaky

TABLE = """# Flaky

Text.

| test | first seen | cause or suspicion |
| --- | --- | --- |
"""
ROW = "| `tests/faults/test_a.py::test_b[x y]` | 2026-11-20 | a lease of 3 s at load 9 |\n"


def test_the_page_is_readable() -> None:
    flaky.entries(flaky.PAGE.read_text())


def test_a_row_tells_how_long_it_has_been_there() -> None:
    older = ROW.replace("test_b", "test_c").replace("11-20", "11-01")
    found = flaky.entries(TABLE + ROW + older)
    assert found[0] == flaky.Entry(
        "tests/faults/test_a.py::test_b[x y]", date(2026, 11, 20), "a lease of 3 s at load 9"
    )
    lines = flaky.told(found, date(2026, 11, 30))
    assert [line.partition(": ")[2][:7] for line in lines] == ["29 days", "10 days"]
    assert flaky.entries(TABLE) == []


@pytest.mark.parametrize(
    "text",
    [
        "# Flaky\n",
        TABLE + ROW.replace("2026-11-20", "last week"),
        TABLE + ROW.replace(" a lease of 3 s at load 9 ", "  "),
        TABLE + ROW.replace("tests/faults/", ""),
        TABLE + "| one cell |\n",
    ],
)
def test_what_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"flaky\.md|three cells|names no test"):
        flaky.entries(text)
