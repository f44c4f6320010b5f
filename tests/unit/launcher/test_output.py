"""The cap of the output: head and tail are kept, the middle is given back to the disk.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from tests.support.disk import apart
from tests.unit.launcher.launching import PATIENCE, Node, eventually, node
from workers.launcher import control
from workers.launcher.output import Stream

__all__ = ["node"]  # the fixture


CAP = 200_000  # bytes of head and of tail


def test_head_and_tail_are_kept_and_the_middle_is_given_back(node: Node) -> None:
    request = node.request(
        "echo first; head -c 40000000 /dev/zero | tr '\\0' x; echo last", head_bytes=CAP, tail_bytes=CAP
    )
    ended = node.finish(request)
    path = node.client.output_path(request.name, "stdout")
    size = 40_000_000 + len("first\nlast\n")
    assert (ended.code, ended.uncapped) == (0, False)
    assert path.stat().st_size == ended.stdout.size == size
    assert ended.stdout.hole is not None
    start, end = ended.stdout.hole
    assert start == CAP
    assert CAP <= size - end <= CAP + 100_000
    assert path.stat().st_blocks * 512 < 1_000_000
    data = path.read_bytes()
    assert data[:start] == b"first\n" + b"x" * (CAP - 6)
    assert data[end:] == b"x" * (size - end - 5) + b"last\n"
    assert ended.stderr.hole is None


def test_the_cap_works_while_the_run_writes(node: Node) -> None:
    request = node.request(
        "head -c 20000000 /dev/zero | tr '\\0' x; echo written >&2; sleep 60", head_bytes=CAP, tail_bytes=CAP
    )
    node.client.start(request)
    eventually(lambda: "written" in node.text(request.name, "stderr"), "it did not write")
    path = node.client.output_path(request.name, "stdout")
    eventually(lambda: path.stat().st_blocks * 512 < 1_000_000, "the blocks were not given back")
    assert node.state(request.name).state == control.RUNNING


def test_a_reader_never_takes_a_hole_for_output(node: Node) -> None:
    line = "abcdefghijklmnopqrstuvwxyz012345678"
    request = node.request(f"yes {line} | head -n 1000000", head_bytes=CAP, tail_bytes=CAP)
    node.client.start(request)
    offset, read, skipped = 0, 0, 0
    while True:
        ended = node.state(request.name).state == control.EXITED
        data, at = node.client.read_output(request.name, "stdout", offset, 65536)
        skipped += at - offset
        period = (line + "\n").encode()
        turned = at % len(period)
        assert data == (period * (len(data) // len(period) + 2))[turned : turned + len(data)]
        read, offset = read + len(data), at + len(data)
        if ended and not data:
            break
    assert read + skipped == 36_000_000


def test_without_a_cap_everything_is_kept(node: Node) -> None:
    ended, text = node.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert ended.stdout == type(ended.stdout)(3_000_000, None)
    assert text == "x" * 3_000_000


def test_a_file_that_is_kept_whole_beside_one_that_is_not(node: Node) -> None:
    """Catches a report from which the middle is missing."""
    script = "head -c 4000000 /dev/zero | tr '\\0' x; head -c 4000000 /dev/zero | tr '\\0' y >&2"
    request = replace(node.request(script, head_bytes=100_000, tail_bytes=100_000), whole=("stdout",))
    ended = node.finish(request)
    assert (ended.stdout.size, ended.stdout.hole) == (4_000_000, None)
    assert node.text(request.name) == "x" * 4_000_000
    assert ended.stderr.size == 4_000_000
    assert ended.stderr.hole is not None or ended.uncapped


# --- a log is no file of the command's ---------------------------------------------------------------------


def test_a_command_cannot_empty_its_own_log(node: Node) -> None:
    """Catches streams that are files: each of these emptied, read or seeked in one."""
    request = node.request(
        "echo one >&2; echo two > /dev/stderr; echo three | tee /dev/stderr; echo four >&2;"
        "truncate -s 0 /dev/stderr 2>/dev/null; : > /dev/stderr; : > /proc/self/fd/2;"
        "dd if=/dev/zero of=/dev/stderr bs=1 count=0 seek=9000 2>/dev/null;"
        "exec 2>>/dev/stderr; cat /dev/stderr 2>/dev/null; chmod 600 /dev/stderr 2>/dev/null; echo five >&2"
    )
    ended = node.finish(request)
    assert node.text(request.name, "stderr") == "one\ntwo\nthree\nfour\nfive\n"
    assert node.text(request.name) == "three\n"
    assert (ended.stderr.size, ended.stderr.hole, ended.stderr.missing) == (24, None, 0)


def test_who_holds_the_pipe_after_the_end_does_not_delay_it(node: Node) -> None:
    """Catches an end that waits until the pipe is closed, or is empty for once."""
    request = node.request("echo mine; read line < fifo")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    started = node.client.start(request).started
    assert started is not None
    assert started.pid is not None
    node.until_written(request.name, "mine")
    over = threading.Event()
    with Path(f"/proc/{started.pid}/fd/1").open("wb", buffering=0) as outsider:

        def flood() -> None:
            with contextlib.suppress(BrokenPipeError):
                while not over.is_set():
                    outsider.write(b"x" * 4096)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            node.until_written(request.name, "mine\nx")
            (node.scratch(request.name) / "fifo").write_text("go\n")
            assert node.end(request.name).code == 0
        finally:
            over.set()
            thread.join(PATIENCE)
    assert node.text(request.name).startswith("mine\nx")


def test_what_is_written_last_is_kept(node: Node) -> None:
    """Catches bytes that are left in a pipe: of what is killed at the main process's end, too."""
    ended, text = node.run("sleep 600 & head -c 200000 /dev/zero | tr '\\0' x; printf last")
    assert ended.code == 0
    assert text == "x" * 200_000 + "last"


def test_a_file_system_without_splice(tmp_path: Path) -> None:
    """Catches output that is lost there; a file that is opened to append refuses splice in the same way."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    file = os.open(tmp_path / "stdout", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stream = Stream("stdout", file, reading)
    for piece in (b"one\n", b"two\n"):
        os.write(writing, piece)
        assert (stream.carry(), stream.carry(), stream.over) == (4, 0, False)
    os.close(writing)
    assert (stream.carry(), stream.over) == (0, True)
    assert (tmp_path / "stdout").read_bytes() == b"one\ntwo\n"
    assert stream.gap.record() == {}
    os.close(reading)
    os.close(file)


FULL = """
import json, os, shutil, sys, time
from pathlib import Path
from workers.runtimes.launched.client import LauncherClient
from workers.runtimes.launched.records import StartRequest, fresh_environment

base, isolation = Path(sys.argv[1]), sys.argv[2]
(base / "s").mkdir(mode=0o711)
client = LauncherClient(base / "c", isolation=isolation)

def start(name, script):
    scratch = base / "s" / name
    scratch.mkdir(mode=0o700)
    os.mkfifo(scratch / "fifo", 0o666)
    client.start(StartRequest(name=name, argv=["/bin/sh", "-c", script], scratch=scratch,
                              env=fresh_environment(scratch, {})))

def fill():
    with open(base / "full", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

def until(what):
    while not what():
        time.sleep(0.01)  # pace: of looks at another process

def go(name):
    (base / "s" / name / "fifo").write_text("go\\n")

def size(name):
    return client.output_path(name, "stdout").stat().st_size

start("1-1", "read line < fifo; echo short")
start("2-1", "echo first; read line < fifo; seq 100000; read line < fifo; echo last")
until(lambda: size("2-1") == 6)
fill()
go("1-1")
short = client.wait("1-1", 60)
go("2-1")
until(lambda: size("2-1") > 6 and os.path.exists(base / "s" / "2-1" / "fifo"))
writing = os.open(base / "s" / "2-1" / "fifo", os.O_WRONLY)  # it has written all when it reads again
os.unlink(base / "full")
os.write(writing, b"go\\n")
long = client.wait("2-1", 60)
text = client.output_path("2-1", "stdout").read_text()
print(json.dumps({"short": [size("1-1"), short.code, short.stdout.missing, short.stdout.untold],
                  "long": [long.code, long.stdout.missing, long.stdout.untold], "text": text}))
client.quit()
"""


def test_what_finds_no_space_is_counted_and_told_in_its_place(node: Node) -> None:
    """Catches a silent hole, a command that is stopped or held up for what it writes, half a line."""
    folder = node.base / "disk"
    folder.mkdir(mode=0o711)
    done = subprocess.run(
        [
            *apart(folder, 1),
            sys.executable,
            "-c",
            FULL,
            str(folder),
            "on" if node.mode == "namespaces" else "off",
        ],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["short"] == [0, 0, 6, "\n[6 bytes of output are missing here: there was no space for them]\n"]
    code, missing, untold = told["long"]
    assert (code, untold) == (0, "")
    whole = "first\n" + "".join(f"{number}\n" for number in range(1, 100_001))
    kept = whole[: len(whole) - missing]
    assert 0 < missing < len(whole)
    assert told["text"] == (
        f"{kept}\n[{missing} bytes of output are missing here: there was no space for them]\nlast\n"
    )
