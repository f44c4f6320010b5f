"""Which names of folders are attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runtimes.rules import attempts_named


@given(
    st.sets(
        st.tuples(
            st.integers(min_value=1, max_value=10**18 - 1), st.integers(min_value=1, max_value=10**9 - 1)
        )
    )
)
def test_attempts_are_read_as_they_are_written(attempts: set[tuple[int, int]]) -> None:
    assert attempts_named(f"{run_id}-{attempt}" for run_id, attempt in attempts) == sorted(attempts)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-", "17", "17-", "-1", "17-1-1", "²-1", "17-²", "٣-١", "007-1", "17-01", "0-1", "17-0"),
        *("17-1\n", " 17-1", "+17-1", "1_7-1", "c17-1", "\udcff-1", "9" * 30 + "-1", "1-" + "9" * 30),
    ],
)
def test_other_names_are_not_ours(name: str) -> None:
    """Catches one that is read as a number and is none (²): then no orphan is found at all; and one that is
    taken for another attempt (007-1)."""
    assert attempts_named([name]) == []
