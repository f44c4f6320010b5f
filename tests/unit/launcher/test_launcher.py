"""The launcher tells the truth about the end of a run, and a command finds what it was promised.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.unit.launcher.launching import Node, mark, node, sleepers

__all__ = ["node"]  # the fixture


# --- how a run ends -------------------------------------------------------------------------------------


def test_success(node: Node) -> None:
    before = time.time()
    ended, text = node.run("echo done")
    assert (ended.code, ended.signal, ended.error, ended.killed) == (0, None, None, None)
    assert text == "done\n"
    assert before <= ended.started_at <= ended.ended_at <= time.time()
    assert 0 < ended.ran_s <= ended.ended_at - before
    assert ended.max_rss_kb > 0


def test_exit_code(node: Node) -> None:
    assert node.run("exit 3")[0].code == 3


def test_signal(node: Node) -> None:
    ended, _ = node.run("kill -SEGV $$")
    assert (ended.code, ended.signal, ended.killed) == (None, signal.SIGSEGV, None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/no/such/program"], "cannot execute '/no/such/program': No such file or directory"),
        (["no-such-program"], "cannot execute 'no-such-program': not found in its PATH"),
        (["/etc/passwd"], "cannot execute '/etc/passwd': Permission denied"),
    ],
)
def test_what_cannot_be_executed(node: Node, argv: list[str], message: str) -> None:
    ended, _ = node.run(argv)
    assert (ended.code, ended.signal, ended.error) == (None, None, message)


def test_a_program_is_found_in_the_path_of_the_run(node: Node) -> None:
    assert node.run(["echo", "found"])[1] == "found\n"


def test_processor_time_is_measured(node: Node) -> None:
    ended, _ = node.run("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    assert 0.02 < ended.cpu_s <= ended.ran_s * 2


def test_what_the_main_process_leaves_is_killed(node: Node) -> None:
    number = mark()
    ended, _ = node.run(f"setsid sleep {number} & (setsid sleep {number} &) ; sleep {number} & exit 4")
    assert (ended.code, ended.killed) == (4, None)
    assert sleepers(number) == []


# --- what a command finds --------------------------------------------------------------------------------


def test_environment_is_exactly_what_was_given(node: Node) -> None:
    given = {"A": "1", "EMPTY": "", "TEXT": "zwei Wörter", "BYTES": "\udcff", "LINES": "a\nb"}
    request = node.request(["/usr/bin/env", "-0"], env=given)
    node.finish(request)
    written = node.client.output_path(request.name, "stdout").read_bytes().split(b"\0")[:-1]
    assert sorted(written) == sorted(os.fsencode(f"{key}={value}") for key, value in given.items())


def test_working_folder_home_and_tmp(node: Node) -> None:
    request = node.request('pwd; echo "$HOME"; echo "$TMPDIR"; cd "$TMPDIR" && touch mine && ls')
    node.finish(request)
    home = str(node.scratch(request.name))
    assert node.text(request.name).split() == [home, home, f"{home}/tmp", "mine"]


def test_files_of_the_worker_belong_to_the_run(node: Node) -> None:
    request = node.request("cat in/a && echo more >> in/a && readlink link && stat -c %u in link . | uniq -c")
    folder = node.scratch(request.name)
    (folder / "in").mkdir(mode=0o700)
    (folder / "in" / "a").write_text("input\n")
    (folder / "in" / "a").chmod(0o600)
    (folder / "link").symlink_to("/etc/passwd")
    owner = Path("/etc/passwd").stat().st_uid
    assert node.finish(request).code == 0
    lines = node.text(request.name).splitlines()
    assert lines[:2] == ["input", "/etc/passwd"]
    assert lines[2].split()[0] == "3"  # one owner for all three
    assert Path("/etc/passwd").stat().st_uid == owner


def test_output_of_both_streams(node: Node) -> None:
    request = node.request(r"printf 'a\000\377b'; printf 'to stderr' >&2; echo again > /dev/stderr")
    ended = node.finish(request)
    assert node.client.output_path(request.name, "stdout").read_bytes() == b"a\0\xffb"
    assert ended.stdout.size == 4
    assert node.text(request.name, "stderr").endswith("again\n")


def test_standard_input_is_empty_and_no_other_file_is_open(node: Node) -> None:
    ended, text = node.run("cat; ls /proc/self/fd")
    assert ended.code == 0
    assert text.split() == ["0", "1", "2", "3"]  # 3 is what ls reads


def test_signals_umask_and_privileges_are_plain(node: Node) -> None:
    _, text = node.run("umask; ulimit -c; cat /proc/self/status")
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert text.split()[:2] == ["0022", "0"]
    assert {int(status[field], 16) for field in ("SigBlk", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert int(status["SigIgn"], 16) & 0x7FFF_FFFF == 0  # the C library keeps 32 and 33 for itself
    assert status["NoNewPrivs"] == "1"
    assert len(set(status["Uid"].split())) == 1
    assert len(set(status["Gid"].split())) == 1
    if node.mode != "none":
        assert status["Groups"].split() == []


def test_session_of_its_own(node: Node) -> None:
    _, text = node.run("cat /proc/self/stat")
    fields = text.rpartition(")")[2].split()
    group, session, terminal = fields[2:5]
    assert group == session
    assert terminal == "0"


def test_limits(node: Node) -> None:
    request = node.request("ulimit -n; ulimit -d", nofile=64, data_bytes=512 * 1024 * 1024)
    node.finish(request)
    assert node.text(request.name).split() == ["64", str(512 * 1024)]


def test_a_large_environment_and_many_arguments(node: Node) -> None:
    request = node.request(["/bin/sh", "-c", "echo $# ${#BIG}", *["x"] * 5000], env={"BIG": "y" * 100_000})
    node.finish(request)
    assert node.text(request.name).split() == ["4999", "100000"]
