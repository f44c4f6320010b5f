"""A command's memory as a whole, its CPU and its disk: held by control groups, or watched.

Where this machine lets the launcher make no groups, both ways are the second one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.launcher.launching import MODES, Node, eventually, kill
from workers.launcher import limits
from workers.runtimes.launched.records import Exit

pytestmark = pytest.mark.invariant

MIB = 1024 * 1024
LIMIT = 64 * MIB
#: An endless sleep, so that only the limit can end it.
THEN = "import time\nwhile True: time.sleep(60)"  # pace: it waits for its end

MAPPED = (
    "import mmap\nm = mmap.mmap(-1, 300 << 20)\n"
    "for i in range(300): m[i << 20:(i + 1) << 20] = b'x' * (1 << 20)\n"
)
OPEN = "import os\nf = os.memfd_create('x')\nfor i in range(300): os.write(f, b'x' * (1 << 20))\n"
SEGMENT = (
    "import ctypes\nc = ctypes.CDLL(None)\nc.shmat.restype = ctypes.c_void_p\n"
    "c.shmdt.argtypes = [ctypes.c_void_p]\nfor i in range(10):\n"
    "  a = c.shmat(c.shmget(0, 30 << 20, 0o1600), None, 0)\n"
    "  ctypes.memset(ctypes.c_void_p(a), 1, 30 << 20)\n"
    "  c.shmdt(a)\n"
)


@pytest.fixture(params=[*((mode, "off") for mode in MODES), (MODES[0], "auto")])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    node = Node(*request.param)
    try:
        yield node
    finally:
        node.close()


def finish(node: Node, script: str | list[str], **more: Any) -> tuple[Exit, str]:
    request = replace(node.request(script), **{"memory_bytes": LIMIT, **more})
    return node.finish(request), node.text(request.name)


def python(program: str) -> list[str]:
    return ["python3", "-I", "-S", "-c", program]


def test_shared_memory_counts(node: Node) -> None:
    """Catches: RLIMIT_DATA alone, which sees none of it: 1 GiB passed with 256 MiB."""
    programs = [MAPPED, OPEN, SEGMENT] if node.mode == "namespaces" else [MAPPED, OPEN]
    requests = [replace(node.request(python(program + THEN)), memory_bytes=LIMIT) for program in programs]
    for request in requests:
        node.client.start(request)
    for request in requests:
        ended = node.end(request.name)
        assert (ended.code, ended.signal, ended.killed, ended.oom) == (None, signal.SIGKILL, None, True)


def test_several_processes_share_one_limit(node: Node) -> None:
    """Catches: a limit of each process, which six of them have six times."""
    program = (
        "import os, time\nfor _ in range(6):\n  if not os.fork():\n"
        # pace: until it has been found small at the first look
        "    time.sleep(0.5)\n    x = b'x' * (20 << 20)\n    while True: time.sleep(60)\nos.wait()\n"
    )
    ended, _ = finish(node, python(program), data_bytes=LIMIT)
    assert ended.oom


def test_what_processes_share_after_a_fork_counts_once(node: Node) -> None:
    """Catches: a sum of what each has resident, six times of what they take. It lives for several looks."""
    program = (
        "import os, time\nx = b'x' * (30 << 20)\n"
        "for _ in range(5):\n  if not os.fork():\n    time.sleep(1)\n    os._exit(0)\n"
        "for _ in range(5): os.wait()\n"
    )
    ended, _ = finish(node, python(program))
    assert (ended.code, ended.oom) == (0, False)


def test_the_main_process_has_the_word(node: Node) -> None:
    """A process that was killed for memory beside it explains a failure only; the record tells both."""
    ended, text = finish(node, f'python3 -I -S -c "{OPEN + THEN}" ; echo $?')
    if node.client.ensure().bounds["memory"]:
        assert (ended.code, ended.oom, text) == (0, True, "137\n")
    else:
        assert (ended.code, ended.signal, ended.oom) == (None, signal.SIGKILL, True)


def test_what_a_command_inherits_and_its_shim_does_not(node: Node) -> None:
    ours = Path("/proc/self/oom_score_adj").read_text()
    request = replace(
        node.request("cat /proc/self/oom_score_adj; nice; sleep 600"), memory_bytes=LIMIT, cpu_m=500
    )
    main = node.client.start(request).started
    bounds = node.client.ensure().bounds
    # As an ordinary user and without a share of CPU it is set when the shell runs already.
    eventually(lambda: len(node.text(request.name).split()) == 2, "it says nothing")
    shim = node.shim(request.name)
    assert Path(f"/proc/{shim}/oom_score_adj").read_text() == ours
    assert main is not None
    assert main.pid is not None
    assert Path(f"/proc/{main.pid}/oom_score_adj").read_text() == f"{limits.FIRST_VICTIM}\n"
    assert os.getpriority(os.PRIO_PROCESS, main.pid) == (0 if bounds["cpu"] else limits.NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, shim) == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_process_of_ours_has_no_such_limits(node: Node) -> None:
    ended, text = finish(node, "cat /proc/self/oom_score_adj; nice", memory_bytes=None)
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert (ended.code, text) == (0, f"{ours}{os.getpriority(os.PRIO_PROCESS, 0)}\n")


FILLING = {
    "one file": "dd if=/dev/zero of=x bs=1M count=40 2>/dev/null",
    "deleted and held": "exec 3>x; rm x; dd if=/dev/zero bs=1M count=40 2>/dev/null >&3",
    "names": "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); : > $i; done",
    "deep": (
        "python3 -I -S -c \"import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
        "open('x', 'wb').write(b'x' * (40 << 20))\""
    ),
}


def test_a_folder_that_grows_ends_its_run(node: Node) -> None:
    """Whatever holds the space: a file, thousands of empty ones, one far below, one without a name."""
    requests = {
        what: replace(
            node.request(f"{script}; exec sleep 600 3>&3" if "3>" in script else f"{script}; exec sleep 600"),
            memory_bytes=LIMIT,
            disk_bytes=8 * MIB,
        )
        for what, script in FILLING.items()
    }
    for request in requests.values():
        node.client.start(request)
    for what, request in requests.items():
        ended = node.end(request.name)
        assert (ended.signal, ended.killed, ended.oom) == (signal.SIGKILL, "disk", False), what
        assert ended.told["limit"] == 8 * MIB, what
        assert 8 * MIB < ended.told["found"] < 64 * MIB, what


def test_a_folder_within_its_limit_ends_nothing(node: Node) -> None:
    """A file with holes, one with many names, and growth of others on the same disk: not this run's."""
    (node.base / "other").write_bytes(b"x" * (20 * MIB))
    script = "truncate -s 1G holes; dd if=/dev/zero of=x bs=1M count=5 2>/dev/null; ln x y; ln x z; sleep 1"
    request = replace(node.request(script), memory_bytes=LIMIT, disk_bytes=8 * MIB)
    node.client.start(request)
    (node.base / "another").write_bytes(b"x" * (20 * MIB))
    ended = node.end(request.name)
    assert (ended.code, ended.killed) == (0, None)


def test_a_reason_to_stop_that_came_first_is_kept(node: Node) -> None:
    request = replace(
        node.request("trap '' TERM; echo on; while :; do cat x x > y 2>/dev/null; echo 1234567 >> x; done"),
        memory_bytes=LIMIT,
        disk_bytes=8 * MIB,
    )
    node.client.start(request)
    node.until_written(request.name, "on")
    node.client.stop(request.name, "cancel", 0.0)
    assert node.end(request.name).killed == "cancel"


def groups_of(node: Node) -> list[Path]:
    """Groups of this node's runs, wherever they were made."""
    return [
        found
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        for found in Path("/sys/fs/cgroup").glob(
            f"*{line.split(':')[2].rstrip('/')}/gantry.*.{node.base.name}-*"
        )
    ]


def test_no_group_is_left(node: Node) -> None:
    """After an end, after the death of a shim, and of a launcher and a shim together."""
    names = [f"{node.base.name}-{what}" for what in ("ends", "loses", "both")]
    requests = [
        replace(node.request(script, name), memory_bytes=LIMIT)
        for name, script in zip(names, ("true", "sleep 600", "sleep 600"), strict=True)
    ]
    bounded = bool(node.client.ensure().bounds["memory"])
    assert node.finish(requests[0]).code == 0
    node.client.start(requests[1])
    assert bool(groups_of(node)) == bounded
    kill(node.shim(names[1]))
    eventually(lambda: not groups_of(node), "the group of a lost run stays", lambda: groups_of(node))
    node.client.start(requests[2])
    shim = node.shim(names[2])
    node.kill_launcher()
    kill(shim)
    node.client.ensure()
    eventually(lambda: not groups_of(node), "a new launcher sweeps nothing", lambda: groups_of(node))
