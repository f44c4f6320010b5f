"""How a shim reaches every process of its run: three ways, the strongest that the machine permits.

Standard library only. `Reach.send` delivers a signal to all of them; `Reach.kill` is repeated by the caller
until it has no child left, which is the proof: a shim adopts every orphan of its run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time

_PASSES = 100  # of stopping what has been forked since; a fork bomb stands still after a few


class NamespaceReach:
    """The shim is process 1 of its own namespace: the kernel signals all others at once, without a race."""

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


class UserReach:
    """The run has a uid of its own: a helper of that uid signals everything that it may, without a race."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def send(self, number: int) -> None:
        helper = os.fork()
        if helper == 0:
            try:
                os.setresuid(self._uid, self._uid, self._uid)
                os.kill(-1, number)
            except OSError:
                pass
            finally:
                os._exit(0)
        os.waitpid(helper, 0)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


class TreeReach:
    """Without any privilege: walk the tree of descendants. Stop all of them first, so that none can fork."""

    def send(self, number: int) -> None:
        for process in descendants(os.getpid()):
            _signal(process, number)

    def kill(self) -> None:
        kill_descendants(os.getpid())


Reach = NamespaceReach | UserReach | TreeReach


def kill_descendants(root: int, spare: frozenset[int] = frozenset()) -> None:
    """KILL every descendant of `root`, except the processes in `spare` and what is below them."""
    stopped: set[int] = set()
    for _ in range(_PASSES):
        fresh = descendants(root, spare) - stopped
        if not fresh:
            break
        for process in fresh:
            _signal(process, signal.SIGSTOP)
        stopped |= fresh
    for process in stopped:
        _signal(process, signal.SIGKILL)


def children(process: int) -> list[int]:
    """The children of all threads of a process; empty when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with (
                contextlib.suppress(ProcessLookupError),
                open(f"/proc/{process}/task/{thread}/children", "rb") as file,
            ):
                found.extend(int(child) for child in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def descendants(root: int, spare: frozenset[int] = frozenset()) -> set[int]:
    """Every process below `root` at this moment."""
    below = children if _KERNEL_LISTS_CHILDREN else _parents().get
    found: set[int] = set()
    open_ends = [root]
    while open_ends:
        for child in below(open_ends.pop()) or ():
            if child not in found and child not in spare:
                found.add(child)
                open_ends.append(child)
    return found


def _parents() -> dict[int, list[int]]:
    """Parent -> children, from a scan of /proc, for kernels that do not list children."""
    table: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{entry}/stat", "rb") as file,
            ):
                # The name may hold spaces and brackets: the fields are counted from its last bracket.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                table.setdefault(parent, []).append(int(entry))
    return table


def tasks_of_user(uid: int) -> int:
    """How many threads a user has now: RLIMIT_NPROC counts all of them, not only a run's."""
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # Not the folder's owner: that is root for a process that hides its memory, as shims do.
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{entry}/status", "rb") as file,
            ):
                status = file.read()
                if int(status.partition(b"\nUid:")[2].split(None, 1)[0]) == uid:
                    count += int(status.partition(b"\nThreads:")[2].split(None, 1)[0])
    return count


def kill_writers(paths: list[str]) -> None:
    """KILL every process of ours that has one of these files or pipes open for writing, and its descendants.

    For the remains of a run whose tree is broken: its processes write to its output, nobody else does.
    """
    for _ in range(_PASSES):
        writers = {int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _writes(entry, paths)}
        if not writers:
            return
        for process in writers:
            kill_descendants(process)
            _signal(process, signal.SIGKILL)
        time.sleep(0.01)


def _writes(process: str, paths: list[str]) -> bool:
    try:
        for file in os.listdir(f"/proc/{process}/fd"):
            link = f"/proc/{process}/fd/{file}"
            if os.readlink(link) in paths and os.lstat(link).st_mode & stat.S_IWUSR:
                return True
    except OSError:
        return False
    return False


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


_KERNEL_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
