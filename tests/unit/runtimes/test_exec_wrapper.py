"""The wrapper under the shells of images: its words arrive as they are, variables are those it is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from workers.launcher.attached import introduction
from workers.runtimes.exec import wrapper

WORD = "\x1e0123"
SHELLS = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]


def wrapped(shell: list[str], words: list[str], **environment: str) -> tuple[int, bytes]:
    """(exit code, output) of what the wrapper is told."""
    assert shutil.which(shell[0]), f"apt install {shell[0]}"
    script = wrapper.command()[-1]
    done = subprocess.run(
        [*shell, "-c", script],
        input=introduction(WORD, words),
        env={"PATH": os.environ["PATH"], "HOSTNAME": "h", "HOME": "/ho me", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_words_arrive_as_they_are(shell: list[str], tmp_path: Path) -> None:
    words = ["", "a b", "line\n\nend\n", "'", '"$HOME`id`"', "\\n", "*", "-n", "é" * 300, "\x1e0123S"]
    show = tmp_path / "show"
    show.write_text("#!/bin/sh\nprintf '<%s>' \"$@\"; echo; echo err >&2; cat; exit 7\n")
    show.chmod(0o755)
    code, said = wrapped(shell, wrapper.words([], {}, [str(show), *words]))
    wanted = "".join(f"<{word}>" for word in words)
    assert (code, said.decode()) == (7, f"{WORD}S\n{wanted}\nerr\n")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_environment_is_what_it_is_told(shell: list[str]) -> None:
    given = ["discovery.type=x", "PWD=/zz", "IFS=,", "PATH=/usr/bin:/bin", "lines=a\nb", "empty=", "own=old"]
    code, said = wrapped(shell, wrapper.words(given, {"own": "new", "PPID": "3"}, ["env", "-0"]), junk="1")
    found = said.removeprefix(f"{WORD}S\n".encode()).split(b"\0")[:-1]
    wanted = [*given[:-1], "own=new", "PPID=3", "HOSTNAME=h", "HOME=/ho me"]
    assert (code, sorted(found)) == (0, sorted(each.encode() for each in wanted))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("program", ["no-such", "/no/such", "/etc/passwd", "/tmp", "cd", "exit"])
def test_what_is_no_program_is_told(shell: list[str], program: str) -> None:
    assert wrapped(shell, wrapper.words([], {}, [program, "x"])) == (127, f"{WORD}X\n".encode())
