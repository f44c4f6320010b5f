"""The worker's side of the launcher: many threads, broken connections, waiting, reading output."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.launcher.launching import MODES, PATIENCE, Node, eventually, node, stands
from workers.launcher import control
from workers.runtimes.launched import client as launcher_client
from workers.runtimes.launched import link as launcher_link
from workers.runtimes.launched.client import LauncherClient, LauncherUnavailableError
from workers.runtimes.launched.records import Exit, Hello, Started, StreamEnd

__all__ = ["node"]  # the fixture


def test_many_threads_share_one_client(node: Node) -> None:
    ends: dict[str, Exit | None] = {}

    def work(number: int) -> None:
        for round_number in range(5):
            request = node.request(f"exit {number}", name=f"{number}-{round_number}")
            assert not node.client.start(request).existed
            ends[request.name] = node.client.wait(request.name, PATIENCE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: end.code for name, end in ends.items() if end} == {
        f"{number}-{round_number}": number for number in range(8) for round_number in range(5)
    }
    assert len([thread for thread in threading.enumerate() if thread.name == "launcher-link"]) == 1


def test_the_reply_is_the_state_in_types(node: Node) -> None:
    before = time.time()
    request = node.request("sleep 60")
    state = node.client.start(request)
    assert isinstance(state.started, Started)
    assert (state.state, state.exit, state.existed) == (control.RUNNING, None, False)
    assert before <= state.started.at <= time.time()
    assert 0 < state.started.boottime <= control.boottime()
    assert state.started.boot_id == control.boot_id()
    assert state.started.fence is True
    assert state.started.pid is not None
    assert Path(f"/proc/{state.started.pid}").exists()
    assert Path(f"/proc/{state.started.shim_pid}").exists()


def test_wait_ends_with_its_time(node: Node) -> None:
    name = node.start("sleep 600")
    began = time.monotonic()
    assert node.client.wait(name, 0.3) is None
    assert time.monotonic() - began > 0.25
    assert node.client.wait(name, 0) is None


def test_wait_does_not_wait_for_what_will_not_come(node: Node) -> None:
    assert node.client.wait("99-1", 3600) is None


def test_wait_is_woken_by_the_launchers_word(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an end that is found by the next look at the files: here that would come in an hour."""
    monkeypatch.setattr(launcher_client, "_POLL", 3600.0)
    request = node.request("cat fifo; exit 4")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    node.client.start(request)
    ends: list[Exit | None] = []
    threading.Thread(
        target=lambda: ends.append(node.client.wait(request.name, 3600)), name="waits", daemon=True
    ).start()
    eventually(lambda: request.name in node.client._waiters, "nobody waits")
    (node.scratch(request.name) / "fifo").write_text("x")
    eventually(lambda: bool(ends), "it was not woken", lambda: node.state(request.name))
    assert [end.code for end in ends if end] == [4]


def test_several_wait_for_one_run(node: Node) -> None:
    name = node.start("sleep 0.3; exit 9")
    ends: list[Exit | None] = []
    threads = [
        threading.Thread(target=lambda: ends.append(node.client.wait(name, PATIENCE))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.code for end in ends if end] == [9, 9, 9, 9]


def test_waiting_goes_on_over_the_death_of_the_launcher(node: Node) -> None:
    request = node.request("cat fifo; exit 2")
    os.mkfifo(node.scratch(request.name) / "fifo", 0o666)
    node.client.start(request)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(node.client.wait, request.name, PATIENCE)
        eventually(lambda: request.name in node.client._waiters, "nobody waits")
        node.kill_launcher()
        (node.scratch(request.name) / "fifo").write_text("x")
        end = waiting.result()
    assert end is not None
    assert end.code == 2


def test_requests_go_on_over_the_death_of_the_launcher(node: Node) -> None:
    first = node.client.ensure().pid
    for _ in range(3):
        node.kill_launcher()
        assert node.run("true")[0].code == 0
    assert node.client.ensure().pid != first


def test_a_launcher_that_stands_still_does_not_hang_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(MODES[0])
    pid = node.client.ensure().pid
    try:
        name = node.start("sleep 600")
        # From here on: a launcher that starts may take longer on a busy machine.
        monkeypatch.setattr(launcher_client, "_REQUEST_TIMEOUT", 1.0)
        monkeypatch.setattr(launcher_client, "_SPAWN_TIMEOUT", 1.0)
        monkeypatch.setattr(launcher_link, "_SEND_TIMEOUT", 1)
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: stands(pid), "the launcher does not stand still")
        with pytest.raises(LauncherUnavailableError, match="no answer"):
            node.client.renew(10)
        with pytest.raises(LauncherUnavailableError, match="cannot send"):
            node.client.start(node.request(["true", "x" * 100_000] + ["y" * 100_000] * 10))
        node.client.stop(name, "cancel", 0)
        assert node.client.wait(name, PATIENCE) is not None
    finally:
        os.kill(pid, signal.SIGCONT)
        node.close()


def test_a_request_that_is_too_large(node: Node) -> None:
    with pytest.raises(ValueError, match="limit is 4194304"):
        node.client.start(node.request(["true", "x" * control.FRAME_LIMIT]))
    assert node.run("true")[0].code == 0


def test_the_handler_of_ends(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    def handler(name: str, end: Exit | None) -> None:
        seen.append((name, end.code if end else None))
        raise RuntimeError("the handler's own mistake")

    seen: list[tuple[str, int | None]] = []
    client = LauncherClient(
        node.control, isolation="on" if node.mode == "namespaces" else "off", on_exit=handler
    )
    try:
        with caplog.at_level(logging.ERROR):
            for code in (1, 2):
                request = node.request(f"exit {code}")
                client.start(request)
                assert client.wait(request.name, PATIENCE) is not None
            eventually(lambda: [code for _, code in seen] == [1, 2], "not told of every end")
        assert "the handler of ended runs failed" in caplog.text
    finally:
        client.close()


def test_runs_and_live(node: Node) -> None:
    assert node.client.runs() == {}
    ended, running = node.start("true"), node.start("sleep 60")
    node.end(ended)
    assert node.client.runs() == {ended: control.EXITED, running: control.RUNNING}
    eventually(lambda: node.client.ensure().live == (running,), "the ended run is still called live")


def test_a_closed_client_says_so(node: Node) -> None:
    node.client.ensure()
    node.client.close()
    with pytest.raises(LauncherUnavailableError, match="closed"):
        node.client.ensure()


def test_quit_ends_the_launcher_only(node: Node) -> None:
    pid = node.client.ensure().pid
    name = node.start("sleep 60")
    node.client.quit()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the launcher did not end")
    assert node.state(name).state == control.RUNNING
    hello: Hello = node.client.ensure()
    assert hello.pid != pid
    assert hello.live == (name,)


def test_no_launcher_can_be_started() -> None:
    client = LauncherClient(Path("/proc/version/c"))
    with pytest.raises(LauncherUnavailableError, match=r"cannot work in /proc/version/c: .*Not a directory"):
        client.ensure()


def test_output_of_a_run_that_has_none_yet(node: Node) -> None:
    assert node.client.read_output("1-1", "stdout", 0, 100) == (b"", 0)
    name = node.start("printf abcdef")
    node.end(name)
    assert node.client.read_output(name, "stdout", 2, 3) == (b"cde", 2)
    assert node.client.read_output(name, "stdout", 6, 3) == (b"", 6)


def test_a_worker_of_several_threads_starts_one_launcher() -> None:
    node = Node(MODES[0])
    try:
        hellos: list[Hello] = []
        clients = [node.client, *(node.another_client() for _ in range(3))]
        threads = [
            threading.Thread(target=lambda c=client: hellos.append(c.ensure())) for client in clients * 2
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({hello.pid for hello in hellos}) == 1
    finally:
        node.close()


def test_records_are_read_tolerantly() -> None:
    record = {
        "code": 0, "signal": None, "error": None, "killed": None, "started_at": 1.0, "ended_at": 2.0,
        "ran_s": 1.0, "max_rss_kb": 5, "cpu_s": 0.5, "uncapped": True,
        "stdout": {"bytes": 7, "hole": [2, 4], "missing": 3, "untold": "[3]"},
        "a field of a later release": 1,
    }  # fmt: skip
    end = Exit.read(record)
    assert end is not None
    assert (end.stdout, end.stderr, end.uncapped) == (StreamEnd(7, (2, 4), 3, "[3]"), StreamEnd(), True)
    assert Exit.read(None) is None
