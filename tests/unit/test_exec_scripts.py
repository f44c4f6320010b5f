"""The wrapper in the shells that containers have: arguments, codes, output, kill; without any engine."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.cluster import wait_until
from tests.unit.launching import mark, sleepers
from workers.runtimes import exec_scripts

SHELLS = [["busybox", "sh"], ["dash"], ["bash", "--posix"]]


def run(
    shell: list[str], argv: Sequence[str], *requests: str, env: dict[str, str] | None = None
) -> tuple[bytes, str]:
    """What the wrapper says on its stream, and its mark; each request half a second after the last."""
    name = f"unit-{time.time_ns()}"
    process = subprocess.Popen(
        [*shell, *exec_scripts.wrapper(name)[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
    )
    assert process.stdin is not None
    process.stdin.write(exec_scripts.introduction("~", argv))
    for request in requests:
        process.stdin.flush()
        time.sleep(0.5)
        process.stdin.write(f"{request}\n".encode())
    said, _ = process.communicate(timeout=60)
    return said, name


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


def test_kill_finds_what_hides() -> None:
    """Own session, no environment, no parent any more."""
    number = mark()
    script = f"sleep {number} & setsid sleep {number} & env -i setsid sleep {number} & wait"
    assert run(["busybox", "sh"], ["sh", "-c", script], "k 0", "k KILL", "q")[0].count(b"~K 4") >= 1
    wait_until(lambda: len(sleepers(number)) == 0, why="all are dead")
