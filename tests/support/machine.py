"""The processes that a worker leaves on its machine, seen from outside: launcher, shims, commands."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from tests.support.cluster import Process
from tests.support.waiting import wait_until
from workers.launcher import control, processes
from workers.runtimes.launched.link import BrokenLinkError, connect
from workers.runtimes.launched.records import Hello, Started


def alive(pid: int) -> bool:
    """Is there such a process, not only its remains?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def process_state(pid: int | None) -> str:
    """The kernel's letter for it: "T" is one that was stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def with_children(pid: int) -> list[int]:
    """A process and its children: an API server answers in these."""
    return [pid, *(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def kill(*pids: int) -> None:
    """SIGKILL, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), why=f"the processes {pids} are gone")


def launcher(node: Path) -> Hello | None:
    """What the launcher of a node's folder says of itself; None when there is none. Never starts one."""
    link = connect(str(node / "launcher"), lambda _event: None)
    if link is None:
        return None
    try:
        return Hello.read(link.ask({"op": "hello"}, 30))
    except BrokenLinkError:
        return None
    finally:
        link.close()


def launcher_pid(node: Path) -> int:
    """The process of the node's launcher."""
    found = launcher(node)
    assert found is not None, f"no launcher answers in {node}"
    return found.pid


def started(node: Path, run_id: int, attempt: int = 1) -> Started:
    """What the shim recorded of an attempt before its command could execute."""
    record = Started.read(control.read_record(str(_folder(node, run_id, attempt) / "started")))
    assert record is not None, f"attempt {attempt} of run {run_id} never started in {node}"
    return record


def commands(shim_pid: int) -> list[int]:
    """The processes of a run below its shim."""
    return sorted(process for process in processes.descendants(shim_pid) if alive(process))


def was_started(node: Path, run_id: int, attempt: int = 1) -> bool:
    """Is there a record of a start of this attempt?"""
    return (_folder(node, run_id, attempt) / "started").exists()


def _folder(node: Path, run_id: int, attempt: int) -> Path:
    return node / "launcher" / "runs" / f"{run_id}-{attempt}"


def wait_dead(process: Process, timeout_s: float = 60.0) -> None:
    """Wait until a worker has died by itself."""
    wait_until(lambda: not process.alive, timeout_s, why=f"{process.name} dies", see=process.tail)


def wait_for_file(path: Path, timeout_s: float = 60.0) -> None:
    wait_until(
        path.exists, timeout_s, every_s=0.01, why=f"{path} appears", see=lambda: list(path.parent.iterdir())
    )


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """The same signal to all of them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
