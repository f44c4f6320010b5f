"""How tests wait: the helper itself, and that nothing else in the tests does."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import waiting
from tests.support.waiting import holds_for, limit, wait_until

TESTS = Path(waiting.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _as_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("GANTRY_TEST_PATIENCE", raising=False)


def test_it_returns_what_it_waited_for() -> None:
    found: Iterator[object] = iter([None, 0, "", [], "here", "later"])
    assert wait_until(lambda: next(found), every_s=0.0) == "here"


def test_what_the_question_raises_is_let_through() -> None:
    def ask() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        wait_until(ask)


def test_the_last_look_begins_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a look that takes longer than the limit and is the only one."""
    now = 0.0
    looks: list[float] = []
    monkeypatch.setattr("tests.support.waiting.monotonic", lambda: now)

    def slow() -> bool:
        nonlocal now
        looks.append(now)
        now += 100.0
        return len(looks) == 2

    assert wait_until(slow, 60.0, every_s=0.0)
    assert looks == [0.0, 100.0]


def test_a_failure_tells_the_last_state_and_the_load() -> None:
    with pytest.raises(
        AssertionError, match=r"^two things: not within 0 s; last seen: \[\]; load \d"
    ) as failed:
        wait_until(list, 0.0, why="two things")
    assert len(str(failed.value)) < 200
    with pytest.raises(AssertionError, match=r"last seen: \{'a': 'x+\.\.\.x+'\}; load"):
        wait_until(bool, 0.0, why="w", see=lambda: {"a": "x" * 10_000})
    with pytest.raises(AssertionError, match=r"last seen: the\nwhole log; load"):
        wait_until(bool, 0.0, why="w", see=lambda: "the\nwhole log")


def test_a_state_that_cannot_be_seen_hides_no_failure() -> None:
    def see() -> object:
        raise OSError("gone")

    with pytest.raises(AssertionError, match=r"w: not within 0 s; last seen: False, .*OSError\('gone'\)"):
        wait_until(bool, 0.0, why="w", see=see)


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit(60) == 60
    monkeypatch.setenv("CI", "true")
    assert limit(60) == 180
    monkeypatch.setenv("GANTRY_TEST_PATIENCE", "0.5")
    assert limit(60) == 30
    with pytest.raises(AssertionError, match=r"not within 0\.01 s"):
        wait_until(bool, 0.02)


def test_what_must_stay_so() -> None:
    looks = itertools.count(1)
    holds_for(lambda: next(looks), 0.05, "it stays", every_s=0.0)
    assert next(looks) > 2
    answers = iter([True, True, False, True])
    with pytest.raises(AssertionError, match=r"it stays: not any more after .* last seen: 3 left"):
        holds_for(lambda: next(answers), 60, "it stays", every_s=0.0, see=lambda: "3 left")


# --- the rest of the tests ----------------------------------------------------------------------------------


def _sources() -> list[Path]:
    helper = Path(waiting.__file__).resolve()
    return [path for path in sorted(TESTS.rglob("*.py")) if path != helper]


def _name(node: ast.expr) -> str:
    """time.sleep as it is written."""
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""


def _own_waits(text: str) -> Iterator[int]:
    """The lines of calls of sleep, and of loops that look at a clock: a wait of one's own."""
    clocks = ("monotonic", "perf_counter", "time.time")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            if _name(node.func).rpartition(".")[2] == "sleep":
                yield node.lineno
        elif isinstance(node, ast.While):
            asked = [_name(part.func) for part in ast.walk(node.test) if isinstance(part, ast.Call)]
            if any(name.endswith(clocks) for name in asked):
                yield node.lineno


def _unexplained(text: str) -> list[int]:
    lines = text.splitlines()
    return [number for number in _own_waits(text) if not lines[number - 1].partition("# pace: ")[2].strip()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time\ntime.sleep(1)\n", [2]),
        ("from time import sleep\nsleep(1)\n", [2]),
        ("await asyncio.sleep(1)  # because\n", [1]),
        ("while time.monotonic() < deadline:\n    look()\n", [1]),
        ("while not done():\n    assert time.monotonic() < deadline\n    time.sleep(0.1)\n", [3]),
        ("time.sleep(1)  # pace: \n", [1]),
        ("time.sleep(1)  # pace: the load\n", []),
        ("run('import time; time.sleep(60)')\n", []),
    ],
)
def test_a_wait_of_ones_own_is_seen(text: str, found: list[int]) -> None:
    assert _unexplained(text) == found


def test_nothing_else_waits() -> None:
    """A sleep is the pace of a load or a fault, the random moment of a race, or a slow peer, and says so.

    To wait for something there is ``tests.support.waiting``.
    """
    found = [
        f"{path.relative_to(TESTS.parent)}:{line}"
        for path in _sources()
        for line in _unexplained(path.read_text())
    ]
    assert not found, "wait with tests.support.waiting.wait_until, or end the line with `# pace: ` and why"
