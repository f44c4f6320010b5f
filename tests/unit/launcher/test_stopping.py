"""A stop ends every process of a run; and who may die: launcher, shim, worker.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.support.waiting import holds_for
from tests.unit.launcher.launching import (
    PATIENCE,
    ROOT,
    Node,
    alive,
    eventually,
    kill,
    mark,
    node,
    sleepers,
)
from workers.launcher import control, processes

__all__ = ["node"]  # the fixture


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
    asked = control.boottime()
    node.client.stop(name, "cancel", 1.0)
    ended = node.end(name)
    stopped = control.stop_request(control.read_stop(control.run_dir(str(node.control), name)))
    assert stopped is not None
    assert asked <= stopped[1]
    assert stopped[2] - stopped[1] == pytest.approx(1), "it was granted another grace period"
    assert control.boottime() >= stopped[2], "it was not given all of it"
    assert (ended.code, ended.signal, ended.killed) == (None, signal.SIGKILL, "cancel")
    assert sleepers(number) == []


def test_who_obeys_ends_at_once(node: Node) -> None:
    name = node.start("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    node.until_written(name, "ready")
    node.client.stop(name, "deadline", 3600)
    ended = node.end(name)
    assert (ended.code, ended.killed) == (7, "deadline")
    assert node.text(name) == "ready\nbye\n"


def test_a_stopped_process_dies(node: Node) -> None:
    number = mark()
    name = node.start(
        f"trap '' TERM; sleep {number} & kill -STOP $!; echo ready; kill -STOP $$; sleep {number}"
    )
    node.until_written(name, "ready")
    node.client.stop(name, "cancel", 0.3)
    assert node.end(name).killed == "cancel"
    assert sleepers(number) == []


def test_the_smaller_grace_wins_and_the_first_reason_stays(node: Node) -> None:
    name = node.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    node.until_written(name, "ready")
    node.client.stop(name, "first", 3600)
    node.client.stop(name, "second", 0.2)
    node.client.stop(name, "third", 3600)
    ended = node.end(name)
    assert (ended.signal, ended.killed) == (signal.SIGKILL, "first")


def test_a_stop_after_the_end_changes_nothing(node: Node) -> None:
    request = node.request("exit 5")
    ended = node.finish(request)
    assert node.client.stop(request.name, "late", 0).exit == ended
    assert node.end(request.name) == ended


def test_a_stop_file_without_a_signal_is_noticed(node: Node) -> None:
    name = node.start("sleep 600")
    control.write_stop(control.run_dir(str(node.control), name), "file", 0)
    assert node.end(name).killed == "file"


def test_a_fork_bomb_is_bounded_and_killed(node: Node) -> None:
    number = mark()
    bomb = f"bomb() {{ while :; do bomb & done; }}; bomb 2>/dev/null & echo ready; exec sleep {number}"
    request = node.request(["/bin/bash", "-c", bomb, number], nproc=40)
    # An ordinary user's other processes count, too: as many as end meanwhile, the bomb may have more.
    others = 0 if ROOT else processes.tasks_of_user(os.getuid())
    crowded = others > 40
    node.client.start(request)
    node.until_written(request.name, "ready")
    eventually(lambda: len(sleepers(number)) > (3 if crowded else 30), "the bomb does not go off")
    most = max(len(sleepers(number)) for _ in range(10))
    node.client.stop(request.name, "cancel", 0)
    assert node.end(request.name).killed == "cancel"
    assert sleepers(number) == []
    assert most <= 40 + others + (20 if crowded else 0)


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
    request = node.request("cat fifo; exit 8")
    name = request.name
    os.mkfifo(node.scratch(name) / "fifo", 0o666)
    node.client.start(request)
    node.kill_launcher()
    (node.scratch(name) / "fifo").write_text("x")
    eventually(lambda: node.state(name).state == control.EXITED, "nobody recorded the end")
    assert node.end(name).code == 8


def test_a_stop_needs_no_launcher(node: Node) -> None:
    number = mark()
    name = node.start(f"sleep {number} & sleep {number}")
    node.kill_launcher()
    node.client.stop(name, "cancel", 3600)
    eventually(lambda: node.state(name).state == control.EXITED, "nobody stopped it")
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
        "from workers.runtimes.launched.client import LauncherClient\n"
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


def test_sigterm_ends_the_launcher_and_no_run(node: Node) -> None:
    name = node.start("sleep 600")
    pid = node.client.ensure().pid
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid), "SIGTERM does not end the launcher")
    assert not (node.control / "launcher.sock").exists()
    assert node.state(name).state == control.RUNNING


def test_the_launcher_ends_when_idle(node: Node) -> None:
    client = node.another_client(idle_exit=0.5)
    request = node.request("cat fifo")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    client.start(request)
    pid = client.ensure().pid
    client.close()
    holds_for(lambda: alive(pid), 2.5, "it lives as long as a run does")
    (node.scratch(request.name) / "fifo").write_text("x")
    eventually(lambda: node.state(request.name).state == control.EXITED, "the run did not end")
    eventually(lambda: not alive(pid), "it did not end")


def test_a_shim_whose_folder_was_removed_ends(node: Node) -> None:
    """Catches a shim that waits for ever to record an end that nobody can ask for."""
    request = node.request("cat fifo")
    name = request.name
    os.mkfifo(node.scratch(name) / "fifo", 0o666)
    node.client.start(request)
    started = node.client.state(name).started
    assert started is not None
    shutil.rmtree(control.run_dir(str(node.control), name))
    (node.scratch(name) / "fifo").write_text("x")
    eventually(lambda: not alive(started.shim_pid), "the shim stays")
