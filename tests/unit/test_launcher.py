"""The launcher starts each run once, tells the truth about its end, and leaves nothing of it behind.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.unit.launching import PATIENCE, Node, alive, eventually, kill, mark, node, sleepers
from workers import launcher
from workers.launcher import control
from workers.launcher.guard import Guard
from workers.runtimes.launcher_client import LauncherError
from workers.runtimes.launcher_records import RunState, fresh_environment

__all__ = ["node"]  # the fixture

PROGRAM = Path(launcher.__file__).with_name("__main__.py")


# --- how a run ends -------------------------------------------------------------------------------------


def test_success(node: Node) -> None:
    before = time.time()
    ended, text = node.run("echo done")
    assert (ended.code, ended.signal, ended.error, ended.killed) == (0, None, None, None)
    assert text == "done\n"
    assert before <= ended.started_at <= ended.ended_at <= time.time()
    assert 0 < ended.ran_s < PATIENCE
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
    request = node.request('cat in/a && echo more >> in/a && readlink link && stat -c %u in link . | uniq -c')
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
    request = node.request(["/bin/sh", "-c", 'echo $# ${#BIG}', *["x"] * 5000], env={"BIG": "y" * 100_000})
    node.finish(request)
    assert node.text(request.name).split() == ["4999", "100000"]


# --- once, and only once ---------------------------------------------------------------------------------


def test_two_clients_start_one_run(node: Node) -> None:
    clients = [node.client, node.another_client()]
    for round_number in range(10):
        request = node.request("echo ran >> count", name=f"7-{round_number}")
        answers: list[RunState] = []
        threads = [
            threading.Thread(target=lambda client=client: answers.append(client.start(request)))
            for client in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        node.end(request.name)
        assert sorted(answer.existed for answer in answers) == [False, True]
        assert (node.scratch(request.name) / "count").read_text() == "ran\n"


def test_a_repeated_start_tells_the_true_state(node: Node) -> None:
    request = node.request("echo ran >> count; cat fifo")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    node.client.start(request)
    again = node.client.start(request)
    assert (again.state, again.existed, again.exit) == (control.RUNNING, True, None)
    assert again.started is not None
    (node.scratch(request.name) / "fifo").write_text("x")
    ended = node.end(request.name)
    again = node.client.start(request)
    assert (again.state, again.existed, again.exit) == (control.EXITED, True, ended)
    assert (node.scratch(request.name) / "count").read_text() == "ran\n"


def test_a_worker_that_dies_after_sending(node: Node) -> None:
    node.client.ensure()
    request = node.request("sleep 0.2; echo ran >> count")
    frame = json.dumps({**request.frame(), "id": 1}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(node.control / "launcher.sock"))
        channel.sendall(frame + frame[:20])
    eventually(lambda: node.state(request.name).state == control.EXITED, "the start was lost")
    assert (node.scratch(request.name) / "count").read_text() == "ran\n"


def test_a_start_that_failed_may_be_repeated(node: Node) -> None:
    request = node.request("echo ran")
    node.scratch(request.name).rmdir()
    with pytest.raises(LauncherError, match="No such file or directory") as refused:
        node.client.start(request)
    assert refused.value.code == "start_failed"
    assert node.state(request.name).state == control.PREPARED
    node.scratch(request.name).mkdir(mode=0o700)
    assert node.finish(request).code == 0


def test_what_was_stopped_before_it_started_does_not_start(node: Node) -> None:
    request = node.request("echo ran")
    node.scratch(request.name).rmdir()
    with pytest.raises(LauncherError):
        node.client.start(request)
    assert node.client.stop(request.name, "cancel", 0).state == control.PREPARED
    node.scratch(request.name).mkdir(mode=0o700)
    with pytest.raises(LauncherError) as refused:
        node.client.start(request)
    assert refused.value.code == "stopped"
    assert node.state(request.name).state == control.PREPARED


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "-x", ".x", "a\n", "ä", "x" * 101])
def test_bad_names_are_refused(node: Node, name: str) -> None:
    good = node.request("true", name="1-1")
    with socket.socket(socket.AF_UNIX) as channel:
        node.client.ensure()
        channel.connect(str(node.control / "launcher.sock"))
        channel.sendall(json.dumps({**good.frame(), "id": "q", "name": name}).encode() + b"\n")
        answer = json.loads(channel.makefile().readline())
    assert (answer["id"], answer["ok"], answer["code"]) == ("q", False, "bad_name")
    assert list((node.control / "runs").iterdir()) == []
    with pytest.raises(control.BadNameError):
        node.client.stop(name, "x", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"argv": []},
        {"argv": "ls"},
        {"argv": ["a\0b"]},
        {"env": {"A=B": "x"}},
        {"env": {"A": 1}},
        {"scratch": "relative"},
        {"limits": {"nproc": -1}},
        {"limits": {"colour": 1}},
        {"head_bytes": "much"},
        {"op": "dance"},
    ],
)
def test_bad_requests_are_refused(node: Node, change: dict[str, object]) -> None:
    node.client.ensure()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(node.control / "launcher.sock"))
        for line in (json.dumps({**node.request("true").frame(), "id": 5, **change}), "no json", "[]"):
            channel.sendall(line.encode() + b"\n")
        replies = channel.makefile()
        answers = [json.loads(replies.readline()) for _ in range(3)]
    assert [(answer["ok"], answer["code"]) for answer in answers] == [(False, "bad_request")] * 3
    assert list((node.control / "runs").iterdir()) == []


def test_a_request_without_end_is_cut_off(node: Node) -> None:
    node.client.ensure()
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(node.control / "launcher.sock"))
        with pytest.raises(OSError):  # noqa: PT012 (which of the calls meets the closed end is a race)
            channel.sendall(b"x" * (control.FRAME_LIMIT + (1 << 20)))
            channel.sendall(b"x" * (1 << 20))
            raise ConnectionError
    assert node.run("true")[0].code == 0


# --- stopping --------------------------------------------------------------------------------------------

FAMILY = """
trap '' TERM
setsid sleep {n} &
(setsid sh -c "trap '' TERM; sleep {n} & (sleep {n} &) ; sleep {n}" &)
env -i setsid sh -c "trap '' TERM; env -i setsid sleep {n} & sleep {n}" &
echo ready
while :; do sleep {n}; done
"""


def test_nothing_survives_the_grace_period(node: Node) -> None:
    number = mark()
    name = node.start(FAMILY.format(n=number))
    node.until_written(name, "ready")
    eventually(lambda: len(sleepers(number)) >= 8, "the family did not grow")
    asked = time.monotonic()
    node.client.stop(name, "cancel", 1.0)
    ended = node.end(name)
    assert 0.9 < time.monotonic() - asked < 5
    assert (ended.code, ended.signal, ended.killed) == (None, signal.SIGKILL, "cancel")
    assert sleepers(number) == []


def test_who_obeys_ends_at_once(node: Node) -> None:
    name = node.start("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    node.until_written(name, "ready")
    node.client.stop(name, "deadline", 60)
    ended = node.end(name)
    assert (ended.code, ended.killed) == (7, "deadline")
    assert node.text(name) == "ready\nbye\n"


def test_a_stopped_process_dies(node: Node) -> None:
    number = mark()
    name = node.start(f"trap '' TERM; sleep {number} & kill -STOP $!; echo ready; kill -STOP $$; sleep {number}")
    node.until_written(name, "ready")
    node.client.stop(name, "cancel", 0.3)
    assert node.end(name).killed == "cancel"
    assert sleepers(number) == []


def test_the_smaller_grace_wins_and_the_first_reason_stays(node: Node) -> None:
    name = node.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    node.until_written(name, "ready")
    node.client.stop(name, "first", 60)
    node.client.stop(name, "second", 0.2)
    node.client.stop(name, "third", 60)
    ended = node.end(name)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, "first")


def test_a_stop_after_the_end_changes_nothing(node: Node) -> None:
    request = node.request("exit 5")
    ended = node.finish(request)
    assert node.client.stop(request.name, "late", 0).exit == ended
    assert node.end(request.name) == ended


def test_a_stop_file_without_a_signal_is_noticed(node: Node) -> None:
    name = node.start("sleep 60")
    control.write_stop(control.run_dir(str(node.control), name), "file", 0)
    assert node.end(name).killed == "file"


def test_a_fork_bomb_is_bounded_and_killed(node: Node) -> None:
    number = mark()
    bomb = f"bomb() {{ while :; do bomb & done; }}; bomb 2>/dev/null & echo ready; exec sleep {number}"
    request = node.request(["/bin/bash", "-c", bomb, number], nproc=40)
    node.client.start(request)
    node.until_written(request.name, "ready")
    eventually(lambda: len(sleepers(number)) > 30, "the bomb does not go off")
    most = max(len(sleepers(number)) for _ in range(10))
    node.client.stop(request.name, "cancel", 0)
    assert node.end(request.name).killed == "cancel"
    assert sleepers(number) == []
    assert most <= 40


# --- who may die -----------------------------------------------------------------------------------------


def test_a_run_outlives_its_launcher(node: Node) -> None:
    request = node.request("cat fifo; exit 6")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    node.client.start(request)
    first = node.client.ensure().pid
    node.kill_launcher()
    assert node.state(request.name).state == control.RUNNING
    other = node.another_client()
    hello = other.ensure()
    assert hello.pid != first
    assert hello.live == (request.name,)
    assert other.start(request).existed
    node.ended.clear()
    (node.scratch(request.name) / "fifo").write_text("go on\n")
    ended = other.wait(request.name, PATIENCE)
    assert ended is not None
    assert ended.code == 6
    assert node.text(request.name) == "go on\n"
    eventually(lambda: (request.name, ended) in node.ended, "the new launcher did not push the end")


def test_an_end_without_a_launcher_is_recorded(node: Node) -> None:
    name = node.start("sleep 0.3; exit 8")
    node.kill_launcher()
    eventually(lambda: node.state(name).state == control.EXITED, "nobody recorded the end")
    assert node.end(name).code == 8


def test_a_stop_needs_no_launcher(node: Node) -> None:
    number = mark()
    name = node.start(f"sleep {number} & sleep {number}")
    node.kill_launcher()
    asked = time.monotonic()
    node.client.stop(name, "cancel", 10)
    eventually(lambda: node.state(name).state == control.EXITED, "nobody stopped it")
    assert time.monotonic() - asked < 5
    assert node.end(name).killed == "cancel"
    assert sleepers(number) == []


def test_a_killed_shim_is_lost_and_leaves_nothing(node: Node) -> None:
    number = mark()
    name = node.start(FAMILY.format(n=number))
    node.until_written(name, "ready")
    kill(node.shim(name))
    assert node.client.wait(name, PATIENCE) is None
    state = node.state(name)
    assert (state.state, state.exit) == (control.LOST, None)
    eventually(lambda: sleepers(number) == [], "processes of a lost run are left")
    eventually(lambda: (name, None) in node.ended, "nobody was told of the loss")
    again = node.client.start(node.request("true", name=name))
    assert (again.state, again.existed) == (control.LOST, True)
    assert node.run("true")[0].code == 0


def test_a_shim_killed_without_a_launcher_leaves_nothing_to_the_next_one(node: Node) -> None:
    number = mark()
    name = node.start(f"trap '' HUP TERM; setsid sleep {number} & echo ready; sleep {number}")
    node.until_written(name, "ready")
    shim = node.shim(name)
    node.kill_launcher()
    kill(shim)
    node.another_client().ensure()
    assert node.state(name).state == control.LOST
    eventually(lambda: sleepers(number) == [], "processes of a lost run are left")


def test_a_shim_that_dies_under_the_next_launcher(node: Node) -> None:
    number = mark()
    name = node.start(f"trap '' HUP TERM; setsid sleep {number} & echo ready; sleep {number}")
    node.until_written(name, "ready")
    node.kill_launcher()
    node.client.ensure()
    kill(node.shim(name))
    eventually(lambda: (name, None) in node.ended, "nobody was told of the loss")
    eventually(lambda: sleepers(number) == [], "processes of a lost run are left")


def test_the_launcher_outlives_its_worker(node: Node) -> None:
    code = (
        "import sys, pathlib, time; sys.path[:0] = sys.argv[2:]\n"
        "from workers.runtimes.launcher_client import LauncherClient\n"
        "print(LauncherClient(pathlib.Path(sys.argv[1])).ensure().pid, flush=True); time.sleep(60)"
    )
    paths = [entry for entry in sys.path if entry]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(node.control), *paths],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        for number in (signal.SIGHUP, signal.SIGINT):
            os.kill(pid, number)
        os.killpg(worker.pid, signal.SIGKILL)
    assert alive(pid)
    assert node.client.ensure().pid == pid
    assert os.getsid(pid) not in (worker.pid, os.getsid(0))
    assert os.path.realpath(f"/proc/{pid}/cwd") == "/" or not os.access(f"/proc/{pid}/cwd", os.R_OK)


def test_sigterm_ends_the_launcher_and_no_run(node: Node) -> None:
    name = node.start("sleep 60")
    pid = node.client.ensure().pid
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid), "SIGTERM does not end the launcher")
    assert not (node.control / "launcher.sock").exists()
    assert node.state(name).state == control.RUNNING


def test_the_launcher_ends_when_idle(node: Node) -> None:
    client = node.another_client(idle_exit=0.5)
    pid = client.ensure().pid
    request = node.request("sleep 2.5")
    client.start(request)
    client.close()
    time.sleep(1.8)
    assert alive(pid), "it ended although a run lives"
    eventually(lambda: node.state(request.name).state == control.EXITED, "the run did not end")
    eventually(lambda: not alive(pid), "it did not end")


# --- the guard -------------------------------------------------------------------------------------------


def test_the_guard_stops_fenced_runs_only(node: Node) -> None:
    node.client.renew(30)
    fenced, free = node.request("sleep 60"), node.request("sleep 60", fence=False)
    node.client.start(fenced)
    node.client.start(free)
    node.client.renew(0.5)
    assert node.end(fenced.name).killed == "guard"
    assert node.state(free.name).state == control.RUNNING
    with pytest.raises(LauncherError, match="renewal") as refused:
        node.client.start(node.request("true"))
    assert refused.value.code == "fenced"
    node.client.renew(30)
    assert node.run("true")[0].code == 0


def test_a_renewal_in_time_keeps_the_guard_quiet(node: Node) -> None:
    name = node.start("sleep 60")
    for _ in range(6):
        node.client.renew(1.5)
        time.sleep(0.5)
    assert node.state(name).state == control.RUNNING
    age = node.client.ensure().renewed_age
    assert age is not None
    assert 0.4 < age < 1.5


def test_the_guard_survives_its_launcher(node: Node) -> None:
    name = node.start("sleep 60")
    node.client.renew(1)
    node.kill_launcher()
    node.another_client().ensure()
    assert node.end(name).killed == "guard"


def test_a_renewal_of_another_start_of_the_machine_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "renewed").write_text("another-boot 1.0 0.1\n")
    assert Guard(str(tmp_path), control.boot_id()).overdue() is None
    (tmp_path / "renewed").write_text(f"{control.boot_id()} 1.0 0.1\n")
    assert "limit is 0.1 s" in str(Guard(str(tmp_path), control.boot_id()).overdue())


# --- the cap of the output -------------------------------------------------------------------------------

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


# --- the launcher itself ---------------------------------------------------------------------------------


def test_a_second_launcher_for_the_folder_refuses(node: Node) -> None:
    pid = node.client.ensure().pid
    second = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), str(node.control)], capture_output=True, text=True, check=False
    )
    assert (second.returncode, second.stderr) == (75, f"launcher: another launcher holds {node.control}\n")
    assert node.client.ensure().pid == pid


def test_wrong_options_are_explained() -> None:
    for arguments, message in (([], "is missing"), (["/tmp/x", "--fly", "high"], "unknown option: --fly high")):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PROGRAM), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 64
        assert message in done.stderr


def test_it_imports_nothing_but_the_standard_library(node: Node) -> None:
    loaded = set()
    for source in PROGRAM.parent.glob("*.py"):
        loaded |= set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_]+)", source.read_text(), re.MULTILINE))
    assert loaded <= set(sys.stdlib_module_names)


def test_folder_and_socket_are_private(node: Node) -> None:
    name = node.start("true")
    node.end(name)
    modes = {
        path: (node.control / path).stat().st_mode & 0o777
        for path in (".", "launcher.sock", "launcher.log", "runs", f"runs/{name}", f"runs/{name}/exit")
    }
    assert list(modes.values()) == [0o700, 0o600, 0o600, 0o700, 0o700, 0o600]


def test_hello(node: Node) -> None:
    hello = node.client.ensure()
    assert (hello.isolation, hello.can_start, hello.boot_id) == (node.mode, True, control.boot_id())
    assert (hello.live, hello.renewed_age) == ((), None)


def test_a_long_path_of_the_folder(node: Node) -> None:
    node.control = node.base / ("long" * 30) / "c"
    node.client = node.another_client()
    assert node.run("echo far")[1] == "far\n"


def test_the_log_is_bounded(node: Node) -> None:
    node.client.ensure()
    log = node.control / "launcher.log"
    with log.open("a") as file:
        file.write("x" * 1_100_000)
    eventually(lambda: (node.control / "launcher.log.1").exists(), "the log was not turned")
    assert log.stat().st_size < 1000


def test_launcher_and_files_do_not_grow(node: Node) -> None:
    pid = node.client.ensure().pid
    if not os.access(f"/proc/{pid}/fd", os.R_OK):  # an ordinary user cannot look into a process that hides
        return
    for _ in range(5):
        node.run("true")
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for _ in range(40):
        node.run("true")
    eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before, "files stay open")


def test_fresh_environment_may_be_replaced() -> None:
    made = fresh_environment(Path("/s"), {"HOME": "/h", "A": "b"})
    assert made["HOME"] == "/h"
    assert made["TMPDIR"] == "/s/tmp"
    assert set(made) == {"PATH", "HOME", "TMPDIR", "A"}
