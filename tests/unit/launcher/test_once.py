"""The launcher starts each run once, however often it is asked for, and refuses what it cannot do.

Every test runs in each mode of isolation that this user can have.
"""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from tests.unit.launcher.launching import Node, eventually, node
from workers.launcher import control
from workers.runtimes.launched.client import LauncherClient, LauncherError
from workers.runtimes.launched.records import RunState, StartRequest

pytestmark = pytest.mark.invariant

__all__ = ["node"]  # the fixture


def test_two_clients_start_one_run(node: Node) -> None:
    clients = [node.client, node.another_client()]

    def ask(client: LauncherClient, request: StartRequest, answers: list[RunState]) -> None:
        answers.append(client.start(request))

    for number in range(10):
        request = node.request("echo ran >> count", name=f"7-{number}")
        answers: list[RunState] = []
        threads = [threading.Thread(target=ask, args=(client, request, answers)) for client in clients]
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


def test_a_start_that_fails_in_the_shim_may_be_repeated_at_once(node: Node) -> None:
    request = node.request("echo ran")
    scratch = node.scratch(request.name)
    for _ in range(10):
        scratch.rename(scratch.with_suffix(".away"))
        scratch.symlink_to("/nonexistent")
        with pytest.raises(LauncherError):
            node.client.start(request)
        assert node.state(request.name).state == control.PREPARED
        scratch.unlink()
        scratch.with_suffix(".away").rename(scratch)
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
        {"whole": ["stdin"]},
        {"whole": "stdout"},
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
