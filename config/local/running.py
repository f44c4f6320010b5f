"""Which processes of a server live, found by where they work, and how they are made to end.

Linux only (/proc). Must not import Django or any app.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from config.local.errors import LocalError

POLL_S = 0.02


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    folder: Path | None
    arguments: str


def _processes_named(programs: Collection[str]) -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            state, parent = rest.split()[:2]
            if name not in programs or state in "ZX":
                continue
            arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            try:
                folder = (entry / "cwd").readlink()
            except PermissionError:  # root without CAP_SYS_PTRACE looks at another account's process
                folder = None
        except OSError:  # it ended meanwhile
            continue
        yield _Process(int(entry.name), int(parent), folder, arguments)


def processes_in(folder: Path, programs: Collection[str], mark: str) -> list[int]:
    """Ids of the live processes named like one of `programs` at work in `folder`: a server and its children.

    The folder tells them from a stranger that got a dead server's number. Where it may not be read, the
    main process is the one with `mark` in its arguments, and its children are its children.
    """
    found: list[int] = []
    for process in sorted(_processes_named(programs), key=lambda each: each.pid):
        if process.folder is None:
            mine = mark in process.arguments or process.parent in found
        else:
            mine = process.folder == folder
        if mine:
            found.append(process.pid)
    return found


def send(pid: int, signum: int) -> None:
    """Signals a process that may have ended already."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def kill_and_wait(find: Callable[[], list[int]], deadline: float, signum: int = signal.SIGKILL) -> None:
    """Signals what `find` returns until it returns nothing."""
    while pids := find():
        for pid in pids:
            send(pid, signum)
        if time.monotonic() > deadline:
            raise LocalError(
                f"processes {pids} do not end although they were killed; look at them with ps -fp"
            )
        time.sleep(POLL_S)
