"""What a run of the tests is worth: pure functions over what tests.tools.outcomes wrote.

A test that failed and then passes alone, as often as its kind asks for (tests.support.passes), is FLAKY: the
run is green and says so. More than ``MOST_FLAKY`` of them, or one that fails again, is red.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.passes import PASSES, PURE, Place

#: In one run. With more of them the machine or the suite is broken, and nothing is asked again.
MOST_FLAKY = 3
#: pytest's exit codes for "all passed" and "some failed"; any other is not about tests.
_JUDGED = {0, 1}
_EXITS = {
    2: "interrupted, or tests that cannot be collected",
    3: "an internal error",
    4: "wrong arguments",
    5: "no test selected",
}


@dataclass
class Failure:
    """One failed attempt of a test."""

    text: str
    load: float


@dataclass
class Test:
    """What became of one test in one process of pytest."""

    __test__ = False

    id: str
    number: int = PURE
    again: int = 1
    outcomes: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    @property
    def failed(self) -> bool:
        """In any phase: setup and teardown count."""
        return bool(self.failures)

    @property
    def word(self) -> str:
        """As pytest counts it."""
        if self.failed:
            return "failed"
        return next((word for word in ("xfailed", "skipped") if word in self.outcomes), "passed")


@dataclass
class Record:
    """What one process of pytest told."""

    exit: int
    tests: dict[str, Test] = field(default_factory=dict)
    #: Selected, and without any outcome.
    lost: list[str] = field(default_factory=list)
    #: What has nothing to do with a test: a file that cannot be imported, an error of pytest's.
    broken: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Test]:
        return [test for test in self.tests.values() if test.failed]


@dataclass
class Verdict:
    """The end of a run."""

    green: bool
    #: Why not green, in words.
    reasons: list[str]
    passed: int
    failed: int
    others: dict[str, int]
    flaky: list[Test]
    #: Failed for good, with the failures of the later attempts.
    bad: list[tuple[Test, list[Failure]]]


def read(path: Path, exit_code: int) -> Record:
    """The record of a process of pytest that ended with this code."""
    record = Record(exit_code)
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            record.broken.append("the record breaks off: pytest was killed")
            continue
        if "test" in entry:
            _add(record.tests.setdefault(entry["test"], Test(entry["test"])), entry)
        elif "planned" in entry:
            place = Place(**entry["planned"])
            if place.id in record.tests:
                record.tests[place.id].number = place.number
                record.tests[place.id].again = place.again
            else:
                record.lost.append(place.id)
        else:
            record.broken.append(f"{entry['broken']}:\n{entry['text']}")
    return record


def _add(test: Test, entry: Mapping[str, Any]) -> None:
    test.outcomes.add(entry["outcome"])
    test.seconds += entry["seconds"]
    test.began = min(test.began, entry["began"]) if test.began else entry["began"]
    test.ended = max(test.ended, entry["ended"])
    if entry["outcome"] == "failed":
        test.failures.append(Failure(f"[{entry['phase']}] {entry['text']}", entry["load"]))


def broken(first: Record) -> list[str]:
    """Why this run is red whatever its tests say; asking any of them again would change nothing."""
    reasons = list(first.broken)
    if first.exit not in _JUDGED:
        reasons.append(f"pytest ended with {first.exit}: {_EXITS.get(first.exit, 'killed')}")
    elif first.lost:
        named = ", ".join(first.lost[:5])
        reasons.append(f"{len(first.lost)} selected tests did not run, among them {named}")
    elif first.exit == 1 and not first.failed:
        reasons.append("pytest ended with 1, and no test has failed")
    if len(first.failed) > MOST_FLAKY:
        reasons.append(f"{len(first.failed)} tests failed: more than {MOST_FLAKY} are no accident")
    return reasons


def to_ask_again(first: Record) -> list[tuple[Test, int]]:
    """The tests to run again, each alone, and how often."""
    return [] if broken(first) else [(test, test.again) for test in first.failed]


def attempt(test: str, again: Record, tail: str) -> Failure | None:
    """How a test did when it ran again alone; ``tail`` is what pytest printed at the end."""
    found = again.tests.get(test)
    if found is not None and found.failed:
        return Failure("\n".join(failure.text for failure in found.failures), found.failures[0].load)
    if found is None or again.exit != 0 or again.broken or found.word != "passed":
        return Failure(f"did not pass: pytest ended with {again.exit}\n{tail}", 0.0)
    return None


def judge(first: Record, again: Mapping[str, Sequence[Failure | None]]) -> Verdict:
    """The verdict, with the later attempts of each test that failed; ``None`` is one that passed."""
    reasons = broken(first)
    flaky: list[Test] = []
    bad: list[tuple[Test, list[Failure]]] = []
    for test in first.failed:
        attempts = again.get(test.id, ())
        failures = [found for found in attempts if found is not None]
        if len(attempts) >= test.again and not failures:
            flaky.append(test)
        else:
            bad.append((test, failures))
    if len(flaky) > MOST_FLAKY:
        reasons.append(f"{len(flaky)} flaky tests: more than {MOST_FLAKY} are red")
    if bad:
        reasons.append(f"{len(bad)} failed" + (", also when run again alone" if again else ""))
    words = [test.word for test in first.tests.values()]
    others: dict[str, int] = {word: words.count(word) for word in ("skipped", "xfailed") if word in words}
    passed = words.count("passed") + len(flaky)
    # Whoever reads the totals alone must not take a run without a verdict for a good one.
    failed = len(bad) or int(bool(reasons))
    return Verdict(not reasons, reasons, passed, failed, others, flaky, bad)


def slowest(tests: Iterable[Test], count: int = 20) -> list[Test]:
    return sorted(tests, key=lambda test: -test.seconds)[:count]


def seconds_of_passes(tests: Iterable[Test]) -> dict[int, tuple[int, float]]:
    """Tests and wall-clock seconds of each pass, from its first test's start to its last one's end."""
    by_pass = {number: [test for test in tests if test.number == number] for number in PASSES}
    return {
        number: (len(of), max(test.ended for test in of) - min(test.began for test in of))
        for number, of in by_pass.items()
        if of
    }
