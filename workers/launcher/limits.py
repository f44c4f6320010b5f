"""A command's limits beyond rlimits: its memory as a whole, its share of CPU, the size of its working folder.

Used by the shim. Where a control group holds the memory, the kernel enforces it and only says whether it
killed; where none does, memory is watched. The folder always is. In every case commands are the first that
the kernel kills when the whole machine is out of memory; without a share of CPU they step back behind the
services (nice). Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time

from . import cgroup, disk, isolation, memory, watched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cgroup import Group
    from .control import Record
    from .isolation import Isolation
    from .orders import Order

OOM = "oom"
DISK = "disk"

FIRST_VICTIM = 1000  # oom_score_adj: before everything that has not asked for the same
NICENESS = 5
_ADJ = "/proc/{}/oom_score_adj"
_EXEC_PATIENCE = 50  # tries of a millisecond


class Limits:
    """Those of one run. An order without `memory_bytes`, for a process of ours, has none."""

    def __init__(self, order: Order, separate: Isolation, group: Group | None, uid: int | None) -> None:
        self._order = order
        self._separate = separate
        self._group = group
        self._uid = uid
        self._own_adj = b""
        self._watched: dict[str, watched.Watched] = {}
        self._over: str | None = None
        self._due = 0.0  # when it is looked again, by the monotonic clock

    def enter(self) -> None:
        """Right before the command starts: what it inherits. As root where runs have users of their own."""
        if self._order.memory_bytes is None:
            return
        if self._group is not None:
            try:
                self._group.enter()
            except OSError:
                self._group = None  # then it is watched
        if self._separate.mode != isolation.NONE:
            with contextlib.suppress(OSError), open(_ADJ.format("self"), "rb") as file:
                self._own_adj = file.read()
            _write(_ADJ.format("self"), b"%d" % FIRST_VICTIM)

    def leave(self, main: int) -> None:
        """Right after it: the shim is its old self again. `main` is the command's process, 0 for none."""
        order = self._order
        if order.memory_bytes is not None:
            if self._group is not None:
                with contextlib.suppress(OSError):
                    self._group.leave()
            if self._own_adj:
                _write(_ADJ.format("self"), self._own_adj)
            elif main:  # an ordinary user's shim could not take it back
                for _ in range(_EXEC_PATIENCE):
                    if _write(_ADJ.format(main), b"%d" % FIRST_VICTIM):
                        break
                    # The kernel lets us go on a moment before the new program is its user's own.
                    time.sleep(0.001)
            groups = self._separate.groups
            if main and not (groups is not None and groups.has(cgroup.CPU)):
                # As its own user: root needs CAP_SYS_NICE for it, and has it not everywhere.
                with contextlib.suppress(OSError), watched.acting_as(self._uid):
                    os.setpriority(os.PRIO_PROCESS, main, NICENESS)
                    _write(f"/proc/{main}/autogroup", b"%d" % NICENESS)  # for kernels that weigh sessions
            if self._group is None or not self._group.has_memory:
                self._watched[OOM] = memory.Memory(order.memory_bytes, self._separate.mode, self._uid)
        if order.disk_bytes is not None:
            self._watched[DISK] = disk.Disk(order.disk_bytes, self._separate.mode)

    def exceeded(self) -> bool:
        """Look, as often as is due. True from then on when the run has to be ended."""
        if self._over is None and (now := time.monotonic()) >= self._due:
            for kind, each in self._watched.items():
                with contextlib.suppress(OSError):
                    if each.look():
                        self._over = kind
            self._due = now + min((each.interval for each in self._watched.values()), default=watched.QUIET)
        return self._over is not None

    @property
    def interval(self) -> float:
        """Seconds until the next look."""
        return watched.BUSY if self._over else max(0.0, self._due - time.monotonic())

    def summary(self, killed: str | None, *, by_kill: bool) -> Record:
        """What `exit` says: `killed` as it was asked for, else `disk`; `oom`; `told` says it in numbers.

        `by_kill`: the main process died of SIGKILL. One that ended by itself at the same time has the word.
        """
        record: Record = {"killed": killed, "oom": self._over == OOM}
        if self._group is not None and self._group.has_memory:
            with contextlib.suppress(OSError, ValueError):
                record["oom"] = self._group.kills() > 0
        if self._over == DISK and killed is None and by_kill:
            each = self._watched[DISK]
            record["killed"] = DISK
            record["told"] = {"limit": each.limit, "found": each.found}
        return record


def _write(path: str, value: bytes) -> bool:
    """False where the machine does not permit it: the command runs without."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(file, value)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
