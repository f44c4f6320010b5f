"""The lock between processes of a machine: real processes, a real file."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import limit

ROOT = Path(__file__).resolve().parents[3]
#: Says "asks", then "in" once it is in, and stays until its standard input ends.
PROGRAM = """
import sys
from pathlib import Path
from workers.runtimes.machine_lock import alone
print("asks", flush=True)
with alone(Path(sys.argv[1]), float(sys.argv[2])):
    print("in", flush=True)
    sys.stdin.read()
"""


class Processes:
    """Processes that want the lock; all are gone at the end."""

    def __init__(self) -> None:
        self._made: list[subprocess.Popen[bytes]] = []

    def start(self, lock: Path, longest_s: float = 200.0) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(lock), str(longest_s)],
            cwd=ROOT,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._made.append(process)
        assert says(process) == "asks"
        return process

    def close(self) -> None:
        for process in self._made:
            process.kill()
            with process:
                pass


def says(process: subprocess.Popen[bytes], within_s: float = 60.0) -> str:
    """Its next line; empty when it says nothing."""
    assert process.stdout is not None
    there, _, _ = select.select([process.stdout], [], [], within_s)
    return process.stdout.readline().decode().strip() if there else ""


def leave(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(limit(60)) == 0


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_the_second_waits_until_the_first_is_out(processes: Processes, tmp_path: Path, end: str) -> None:
    """Catches two that are in at once, and a lock that outlives its holder."""
    lock = tmp_path / "lock"
    first = processes.start(lock)
    assert says(first) == "in"
    second = processes.start(lock)
    assert says(second, within_s=0.5) == ""
    if end == "leaves":
        leave(first)
    else:
        first.kill()
    assert says(second) == "in"
    leave(second)
    third = processes.start(lock)
    assert says(third) == "in", "the file that is left locks nobody out"


def test_nobody_waits_for_ever(processes: Processes, tmp_path: Path) -> None:
    """Catches a node without containers because one process hangs with the lock in its hand."""
    first = processes.start(tmp_path / "lock")
    assert says(first) == "in"
    assert says(processes.start(tmp_path / "lock", longest_s=0.2)) == "in"
    assert first.poll() is None


def test_without_a_lock_it_goes_on(processes: Processes, tmp_path: Path) -> None:
    """No such folder; and a link that somebody has put there is not followed."""
    assert says(processes.start(tmp_path / "nowhere" / "lock")) == "in"
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    assert says(processes.start(tmp_path / "lock")) == "in"
    assert not (tmp_path / "elsewhere").exists()
