"""Runs the tests and judges them: what `make test` does.

    python -m tests.tools.run WORKERS [arguments for pytest]

pytest runs once, in its passes (tests.support.passes). What failed runs again at the end, alone, in a
pytest of its own; tests.tools.judge says how it ends. Exit codes: 0 green, 1 red, 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType

from tests.support.seeds import seed
from tests.tools import flaky, judge

#: pytest, and how each of its processes is called; the tests of the judge have others.
PYTEST = [sys.executable, "-m", "pytest"]
_PR_SET_PDEATHSIG = 1
#: So long pytest has for ending its servers.
_PATIENCE_S = 60.0


class Interrupted(Exception):
    """Ctrl-C, or another wish to end."""

    def __init__(self, number: int) -> None:
        self.number = number


class Pytest:
    """One process of pytest after another, each in a group of its own, ended with this one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def run(self, *arguments: str, quiet: bool = False) -> tuple[judge.Record, str]:
        """Its record, and the end of what it printed if it was quiet."""
        self._count += 1
        outcomes = self._folder / f"{self._count}.jsonl"
        log = self._folder / f"{self._count}.log"
        ours = ["-p", "tests.tools.outcomes", f"--outcomes={outcomes}", f"--hypothesis-seed={seed()}"]
        command = [*PYTEST, *ours, *arguments]
        with log.open("wb") as out:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out if quiet else None,
                stderr=subprocess.STDOUT if quiet else None,
                process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 no threads here
            )
            try:
                code = child.wait()
            except Interrupted as wish:
                _end(child, wish.number)
                raise
        return judge.read(outcomes, code), log.read_text(errors="replace")[-4000:]


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _end(child: subprocess.Popen[bytes], number: int) -> None:
    """As a terminal would; in earnest when that is not enough, or somebody asks again."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired, Interrupted):
            child.wait(_PATIENCE_S)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def main(arguments: list[str]) -> int:
    """Run, ask again, judge, tell."""
    workers, *rest = arguments
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    chosen = seed()
    os.environ["GANTRY_TEST_SEED"] = str(chosen)
    print(f"seed: GANTRY_TEST_SEED={chosen}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gantry-tests-"))
    began = time.monotonic()
    try:
        pytest = Pytest(folder)
        first, _ = pytest.run("-n", workers, *rest)
        again = _ask_again(pytest, first, rest)
    except Interrupted as wish:
        print("interrupted", flush=True)
        return 128 + wish.number
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    verdict = judge.judge(first, again)
    if first.exit == 0 and not first.tests and not verdict.reasons:
        return 0  # --collect-only, --help
    show(first, verdict, again, time.monotonic() - began)
    if first.exit == 2 and not first.broken and not first.failed:
        return 130  # pytest was asked to end and we were not
    return 0 if verdict.green else 1


def _ask_again(pytest: Pytest, first: judge.Record, rest: list[str]) -> dict[str, list[judge.Failure | None]]:
    """Run what failed once more, alone; stops asking at the first failure."""
    again: dict[str, list[judge.Failure | None]] = {}
    for test, times in judge.to_ask_again(first):
        attempts = again.setdefault(test.id, [])
        for number in range(times):
            print(f"once more, alone ({number + 1} of {times}): {test.id}", end=" ", flush=True)
            record, tail = pytest.run(test.id, *_kept(rest), quiet=True)
            attempts.append(judge.attempt(test.id, record, tail))
            print("passed" if attempts[-1] is None else "FAILED", flush=True)
            if attempts[-1] is not None:
                break
    return again


def _kept(rest: list[str]) -> list[str]:
    """Of the arguments, those that say how pytest works and not which tests it takes."""
    kept = []
    for number, option in enumerate(rest):
        if option in ("-p", "-o", "-c", "--rootdir", "-W"):
            kept += rest[number : number + 2]
        elif re.match(r"(--override-ini|--rootdir|--config-file|--timeout)=", option):
            kept.append(option)
    return kept


# --- what a person reads --------------------------------------------------------------------------------


def show(
    first: judge.Record,
    verdict: judge.Verdict,
    again: dict[str, list[judge.Failure | None]],
    seconds: float,
) -> None:
    """The end of the output; its last line is the totals alone."""
    for test, failures in verdict.bad if not judge.broken(first) else ():
        _headline(f"FAILED {test.id}")
        for failure in (*test.failures, *failures):
            print(f"at load {failure.load:.1f}:\n{failure.text}\n")
    _headline("the slowest")
    for test in judge.slowest(first.tests.values()):
        print(f"{test.seconds:7.1f} s  {test.id}")
    _headline("the passes")
    for number, (count, taken) in judge.seconds_of_passes(first.tests.values()).items():
        print(f"pass {number}: {count} tests in {taken:.0f} s")
    if verdict.flaky:
        _headline("FLAKY")
        _show_flaky(verdict.flaky, again)
    for reason in verdict.reasons:
        print(f"red: {reason}")
    others = "".join(f", {count} {word}" for word, count in verdict.others.items())
    flaked = f", {len(verdict.flaky)} flaky" if verdict.flaky else ""
    _headline(f"{verdict.failed} failed, {verdict.passed} passed{others}{flaked} in {seconds:.0f} s")
    print(f"{verdict.passed} passed, {verdict.failed} failed", flush=True)


def _show_flaky(tests: list[judge.Test], again: dict[str, list[judge.Failure | None]]) -> None:
    try:
        listed = {entry.test: entry for entry in flaky.entries(flaky.PAGE.read_text())}
    except (OSError, ValueError) as error:
        print(error)
        listed = {}
    today: date = datetime.now(UTC).date()
    for test in tests:
        known = listed.get(test.id)
        since = f"listed for {known.days(today)} days" if known else "not in docs/flaky.md: put it there"
        print(f"FLAKY {test.id}: passed alone, {len(again[test.id])} of {test.again}; {since}")
        for failure in test.failures:
            print(f"at load {failure.load:.1f}:\n{failure.text}\n")


def _headline(text: str) -> None:
    print(f" {text} ".center(100, "="), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
