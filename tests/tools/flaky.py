"""docs/flaky.md: the tests that failed once and passed alone, each an open bug.

python -m tests.tools.flaky      prints for each how many days it has stood there
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flaky.md"
HEADER = ["test", "first seen", "cause or suspicion"]


@dataclass(frozen=True)
class Entry:
    """A row: the test's id as pytest prints it, when it was first seen, and why it may have been."""

    test: str
    since: date
    cause: str

    def days(self, today: date) -> int:
        return (today - self.since).days


def entries(text: str) -> list[Entry]:
    """The rows of the page's only table; ``ValueError`` says which line is wrong."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if len(rows) < 2 or rows[0] != HEADER or set("".join(rows[1])) != {"-"}:
        raise ValueError(f"docs/flaky.md has no table with the columns {HEADER}")
    return [_entry(line, row) for line, row in zip(lines[2:], rows[2:], strict=True)]


def _entry(line: str, row: list[str]) -> Entry:
    try:
        test, since, cause = row
        found = Entry(test.strip("`"), date.fromisoformat(since), cause)
    except ValueError as error:
        raise ValueError(f"{line!r}: three cells, the second a date like 2026-11-30") from error
    if not re.fullmatch(r"tests/\S+\.py::.+", found.test) or not cause:
        raise ValueError(
            f"{line!r}: names no test like tests/unit/vocabulary/test_states.py::test_all, or no cause"
        )
    return found


def told(listed: list[Entry], today: date) -> list[str]:
    """A line for each, the oldest first."""
    return [
        f"{entry.test}: {entry.days(today)} days ({entry.cause})"
        for entry in sorted(listed, key=lambda entry: entry.since)
    ]


if __name__ == "__main__":
    lines = told(entries(PAGE.read_text()), datetime.now(UTC).date())
    print(f"docs/flaky.md: {len(lines)} listed", *lines, sep="\n  ")
    sys.exit(0)
