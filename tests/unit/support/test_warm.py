"""Programs that are started warm are what an interpreter of their own would have been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support import warm
from tests.support.machine import alive
from tests.support.waiting import limit, wait_until

#: What a program sees of itself.
SELF = """
import gc, json, os, signal, sys, threading
print(json.dumps({
    "argv": sys.argv[1:], "name": __name__, "environment": dict(os.environ), "cwd": os.getcwd(),
    "leads": os.getsid(0) == os.getpid() == os.getpgid(0), "input": sys.stdin.read(), "gc": gc.isenabled(),
    "threads": threading.active_count(), "files": sorted(os.listdir("/proc/self/fd")), "path": sys.path,
    "ours": sorted(
        {m.partition(".")[0] for m in sys.modules}
        & {"config", "workers", "tasks_api", "jobs", "queues", "workqueue"}
    ),
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)],
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
}))
print("told", file=sys.stderr)
"""


@pytest.fixture
def started(tmp_path: Path) -> warm.Warm:
    return warm.here()


#: All of what the programs here are given, but for AS_INSTALLED.
ENV = {
    name: value for name, value in os.environ.items() if name == "PATH" or name.startswith(("LC_", "LANG"))
}


def _start(started: warm.Warm, folder: Path, program: str, **env: str) -> tuple[warm.Forked, Path]:
    file, log = folder / "program.py", folder / "log"
    file.write_text(program)
    with log.open("wb") as out:
        command = [sys.executable, str(file), "one", "two words"]
        return started.start(command, {**ENV, **env}, folder, out.fileno()), log


def test_a_program_finds_what_a_fresh_interpreter_gives_it(started: warm.Warm, tmp_path: Path) -> None:
    """Catches what would make a test of a warm node one of something else: another's variables, open files,
    a module of Gantry with another node's settings, a handler of signals."""
    process, log = _start(started, tmp_path, SELF, ONE="1")
    assert process.wait(limit(60)) == 0
    said, told = log.read_text().splitlines()
    seen: dict[str, Any] = json.loads(said)
    fresh = subprocess.run(
        [sys.executable, tmp_path / "program.py", "one", "two words"],
        env={**ENV, "ONE": "1", **warm.AS_INSTALLED},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    expected = json.loads(fresh.stdout)
    for name in warm.AS_INSTALLED:
        del expected["environment"][name]
    assert seen == expected
    assert told == "told"


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(4)", 4),
        ("raise ValueError('it broke')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_how_it_ended_is_known(started: warm.Warm, tmp_path: Path, program: str, code: int) -> None:
    process, log = _start(started, tmp_path, program)
    assert process.wait(limit(60)) == code
    assert process.poll() == process.returncode == code
    assert ("it broke" in log.read_text()) == (code == 1)


def test_it_is_waited_for_and_signalled_as_any_child(started: warm.Warm, tmp_path: Path) -> None:
    process, _ = _start(started, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    assert process.poll() is None
    waiting = [threading.Thread(target=process.wait, args=(limit(60),)) for _ in range(2)]
    for each in waiting:
        each.start()
    process.terminate()
    for each in waiting:
        each.join(limit(60))
    assert process.wait(limit(60)) == -signal.SIGTERM
    process.kill()  # its number may be another's by now: nobody is signalled
    assert not alive(process.pid)


def test_what_an_interpreter_reads_at_its_start_is_no_matter_for_a_fork(tmp_path: Path) -> None:
    """Catches a node that a test gave a preloaded library or modules of its own, and that has none of it."""
    command = [sys.executable, "manage.py", "node"]
    env = {**os.environ, **warm.AS_INSTALLED}
    assert warm.can_start(command, {**env, "GANTRY_NODE_NAME": "n1"}, warm.ROOT)
    assert not warm.can_start(command, {**env, "LD_PRELOAD": "/lib/clock.so"}, warm.ROOT)
    assert not warm.can_start(command, {**env, "PYTHONPATH": "/elsewhere"}, warm.ROOT)
    assert not warm.can_start(command, env, tmp_path)
    assert not warm.can_start(["unshare", *command], env, warm.ROOT)


def test_it_ends_with_who_started_it_and_what_it_started_goes_on(tmp_path: Path) -> None:
    own = warm.Warm({**os.environ, **warm.AS_INSTALLED}, warm.ROOT)
    process, _ = _start(own, tmp_path, "import time; time.sleep(600)")
    try:
        own.close()
        assert own.process.returncode == 0
        assert alive(process.pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not alive(process.pid), why="the program is gone")
    with pytest.raises((RuntimeError, OSError)):
        own.exit_code(process.pid)
