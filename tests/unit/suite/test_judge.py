"""The judge, asked about made-up outcomes. It must never make green what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.passes import FAULTS, PURE
from tests.tools.judge import (
    MOST_FLAKY,
    Failure,
    Record,
    Test,
    attempt,
    broken,
    judge,
    read,
    seconds_of_passes,
    slowest,
    to_ask_again,
)

NO = Failure("assert False", 9.5)


def passed(name: str) -> Test:
    return Test(name, outcomes={"passed"})


def failed(name: str, again: int = 1) -> Test:
    return Test(name, again=again, outcomes={"passed", "failed"}, failures=[NO])


def run(*tests: Test, code: int | None = None, **more: Any) -> Record:
    if code is None:
        code = 1 if any(test.failed for test in tests) else 0
    return Record(code, {test.id: test for test in tests}, **more)


def test_all_passed_is_green() -> None:
    verdict = judge(run(passed("a"), passed("b")), {})
    assert (verdict.green, verdict.passed, verdict.failed, verdict.flaky) == (True, 2, 0, [])


def test_what_passes_alone_is_green_and_flaky() -> None:
    verdict = judge(run(passed("a"), failed("b")), {"b": [None]})
    assert (verdict.green, verdict.passed, verdict.failed) == (True, 2, 0)
    assert [test.id for test in verdict.flaky] == ["b"]
    assert verdict.flaky[0].failures == [NO]


def test_what_fails_again_is_red_with_both_failures() -> None:
    other = Failure("assert 1 == 2", 0.5)
    verdict = judge(run(passed("a"), failed("b")), {"b": [other]})
    assert (verdict.green, verdict.passed, verdict.failed) == (False, 1, 1)
    assert verdict.bad == [(failed("b"), [other])]


@pytest.mark.parametrize(
    ("attempts", "green"),
    [
        ([None] * 5, True),
        ([None] * 4, False),  # not asked often enough is not passed
        ([None] * 4 + [NO], False),
        ([NO] + [None] * 5, False),
        ([], False),
    ],
)
def test_a_promise_must_hold_five_times(attempts: list[Failure | None], green: bool) -> None:
    assert judge(run(failed("a", again=5)), {"a": attempts}).green is green


def test_who_was_not_asked_again_has_failed() -> None:
    verdict = judge(run(failed("a")), {})
    assert (verdict.green, verdict.failed) == (False, 1)


def test_more_than_three_are_no_accident() -> None:
    """Not even asked again: whatever they answered, the run is red."""
    three = [failed(str(n)) for n in range(MOST_FLAKY)]
    assert judge(run(*three), {test.id: [None] for test in three}).green
    assert len(to_ask_again(run(*three))) == MOST_FLAKY
    four = [*three, failed("one more")]
    assert to_ask_again(run(*four)) == []
    assert not judge(run(*four), {test.id: [None] for test in four}).green


@pytest.mark.parametrize(
    "record",
    [
        run(passed("a"), code=2),
        run(passed("a"), code=3),
        run(code=4),
        run(code=5),
        run(passed("a"), code=-9),
        run(passed("a"), code=1),
        run(passed("a"), lost=["b"]),
        run(passed("a"), broken=["tests/unit/test_a.py: SyntaxError"]),
        run(failed("a"), code=2),
    ],
)
def test_an_end_that_is_not_about_tests_is_red_at_once(record: Record) -> None:
    assert broken(record)
    assert to_ask_again(record) == []
    verdict = judge(record, {"a": [None]})
    assert not verdict.green
    assert verdict.failed == 1, "for whoever reads the totals alone"


def line(test: str, phase: str, outcome: str, **more: object) -> dict[str, object]:
    return {
        "test": test,
        "phase": phase,
        "outcome": outcome,
        "began": 10.0,
        "ended": 12.0,
        "seconds": 2.0,
        "load": 1.5,
        "text": "",
        **more,
    }


def write(folder: Path, *lines: dict[str, object]) -> Path:
    path = folder / "record"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


def planned(test: str, number: int = PURE, again: int = 1) -> dict[str, object]:
    return {"planned": {"id": test, "number": number, "group": "g", "whole": False, "again": again}}


def test_the_record_is_read_with_every_phase(tmp_path: Path) -> None:
    """An error in setup or teardown is a failure, and so is a worker's death."""
    lines = [
        *(line("fine", phase, "passed") for phase in ("setup", "call", "teardown")),
        line("setup", "setup", "failed", text="no database"),
        *(line("teardown", phase, "passed") for phase in ("setup", "call")),
        line("teardown", "teardown", "failed", text="a process is left", load=7.0),
        line("crash", "???", "failed", text="worker 'gw0' crashed"),
        line("skip", "setup", "skipped"),
        line("known", "call", "xfailed"),
    ]
    plan = [planned(name) for name in ("fine", "setup", "teardown", "skip", "known")]
    record = read(write(tmp_path, *lines, planned("crash", FAULTS, 5), planned("never"), *plan), 1)
    words = {name: test.word for name, test in record.tests.items()}
    assert words == {
        "fine": "passed",
        "setup": "failed",
        "teardown": "failed",
        "crash": "failed",
        "skip": "skipped",
        "known": "xfailed",
    }
    assert record.tests["teardown"].failures == [Failure("[teardown] a process is left", 7.0)]
    assert (record.tests["crash"].number, record.tests["crash"].again) == (FAULTS, 5)
    assert record.lost == ["never"]
    assert record.tests["fine"].seconds == 6.0


def test_a_record_that_breaks_off_or_is_missing_is_no_success(tmp_path: Path) -> None:
    path = write(tmp_path, line("a", "call", "passed"))
    path.write_text(path.read_text() + '{"test": "b", "pha')
    assert not judge(read(path, 0), {}).green
    assert not judge(read(tmp_path / "none", 137), {}).green


def test_an_error_of_collection_is_named(tmp_path: Path) -> None:
    record = read(write(tmp_path, {"broken": "tests/unit/test_x.py", "text": "ImportError: y"}), 2)
    assert any("test_x.py" in reason and "ImportError" in reason for reason in judge(record, {}).reasons)


@pytest.mark.parametrize(
    ("again", "good"),
    [
        (run(passed("a")), True),
        (run(failed("a")), False),
        (run(passed("b")), False),  # it did not run
        (run(code=5), False),
        (run(passed("a"), code=3), False),
        (run(code=1), False),  # timed out: the process is gone, with its record
        (run(Test("a", outcomes={"skipped"})), False),
    ],
)
def test_only_a_pass_passes(again: Record, good: bool) -> None:
    assert (attempt("a", again, "the end") is None) is good


def test_the_slowest_and_the_passes() -> None:
    tests = [
        Test("a", PURE, seconds=1.0, began=100.0, ended=101.0),
        Test("b", PURE, seconds=3.0, began=100.5, ended=103.5),
        Test("c", FAULTS, seconds=2.0, began=104.0, ended=106.0),
    ]
    assert [test.id for test in slowest(tests, 2)] == ["b", "c"]
    assert seconds_of_passes(tests) == {PURE: (2, 3.5), FAULTS: (1, 2.0)}
