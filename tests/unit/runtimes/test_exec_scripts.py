"""The wrapper in the shells that containers have: arguments, codes, output, kill; without any engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.waiting import limit, wait_until
from tests.unit.launcher.launching import mark, sleepers
from workers.runtimes.exec import scripts

SHELLS = [["busybox", "sh"], ["dash"], ["bash", "--posix"]]


def run(
    shell: list[str],
    argv: Sequence[str],
    *requests: str,
    env: dict[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
) -> tuple[bytes, str]:
    """What the wrapper says on its stream, and its mark.

    Requests are made when ``ready`` says so, else when the command has ended; one after the other.
    """
    name = f"unit-{time.time_ns()}"
    process = subprocess.Popen(
        [*shell, *scripts.wrapper(name)[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = bytearray()
    stdin, stdout = process.stdin, process.stdout

    def read() -> None:
        while piece := os.read(stdout.fileno(), 65_536):
            said.extend(piece)

    def ended() -> bool:
        """Its end is behind its output in a file. The word of it on the stream may be quicker."""
        return any(b"~E " in path.read_bytes() for path in Path("/tmp").glob(f".{name}.[0-9]*"))

    reader = threading.Thread(target=read)
    reader.start()
    with process:
        stdin.write(scripts.introduction("~", argv))
        stdin.flush()
        wait_until(ready or ended, why="requests can be made")
        for request in requests:
            stdin.write(f"{request}\n".encode())
            stdin.flush()
            time.sleep(0.2)  # pace: a worker's
        stdin.close()
        process.wait(limit(60))
        reader.join(limit(60))
    return bytes(said), name


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_arguments_environment_and_code(shell: list[str]) -> None:
    assert shutil.which(shell[0])
    odd = ["a b", "", "l1\nl2\n\nq'\"$x`\\n", "ü"]
    script = 'for a; do printf "<%s>" "$a"; done; env | grep ^_g; echo "$_V"; echo err >&2; exit 5'
    said, name = run(shell, ["sh", "-c", script, "-", *odd], "r 0 0", "q", env={"_V": "kept"})
    want = "".join(f"<{each}>" for each in odd) + "kept\nerr\n~E 5\n"
    assert want.encode() in said
    assert said.startswith(b"~S ")
    assert not list(Path("/tmp").glob(f".{name}*"))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("program", ["nope", "/etc/passwd", "exit", "/nowhere/x"])
def test_what_is_no_program(shell: list[str], program: str) -> None:
    said, _ = run(shell, [program], "r 0 0", "q")
    assert b"~E 12" in said, "126 or 127"
    assert (b"~X" in said) == (program != "exit")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_short_output_takes_one_dd(shell: list[str]) -> None:
    """One that has met the end says so: no other has to look for more, and leave an empty chunk."""
    said, _ = run(shell, ["sh", "-c", "echo said"], "r 0 0", "q")
    assert b"said\n~E 0\n~A 0 " in said


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_output_of_more_than_a_chunk(shell: list[str], tmp_path: Path) -> None:
    """A dd that took all the reads it may take has not met the end."""
    name, size = f"unit-{time.time_ns()}", 65_536 * 1_100
    last, said = Path(f"/tmp/.{name}.1"), tmp_path / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [*shell, *scripts.wrapper(name)[1:]],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin"},
        )
    assert process.stdin is not None
    process.stdin.write(scripts.introduction("~", ["head", "-c", str(size), "/dev/zero"]))
    process.stdin.flush()
    # Partial reads make chunks smaller: there may be more than two of them.

    def chunks() -> list[Path]:
        return sorted(Path("/tmp").glob(f".{name}.[0-9]*"), key=lambda path: int(path.suffix[1:]))

    def over() -> bool:
        # The last may be an empty one, where the end fell on the end of a chunk.
        return last.exists() and any(path.read_bytes().endswith(b"~E 0\n") for path in chunks()[-2:])

    wait_until(over, 60, why="it ends")
    count = len(chunks())
    process.communicate(
        "".join(f"r {number} 0\n" for number in range(count)).encode() + b"q\n", timeout=limit(60)
    )
    assert count > 1
    assert said.read_bytes().count(b"\0") == size


def test_kill_finds_what_hides() -> None:
    """Own session, no environment, no parent any more."""
    number = mark()
    script = f"sleep {number} & setsid sleep {number} & env -i setsid sleep {number} & wait"
    said, _ = run(
        ["busybox", "sh"],
        ["sh", "-c", script],
        *("k 0", "k KILL", "q"),
        ready=lambda: len(sleepers(number)) >= 4,  # the shell, whose words have the number, too
    )
    assert said.count(b"~K 4") >= 1
    wait_until(lambda: len(sleepers(number)) == 0, why="all are dead")
