"""What a killed shim leaves behind, and its end. Standard library only.

In namespaces of its own the kernel kills a run together with its shim. Elsewhere the orphans become children
of the launcher that started them; when that is dead too, the next one finds them by their uid, or by the
pipes that they write their output to.
"""

from __future__ import annotations

import contextlib
import os

from . import control, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record
    from .isolation import Isolation


def kill_strays(shims: frozenset[int]) -> bool:
    """KILL and collect every child of this launcher that is no shim. True while there is any."""
    if not set(processes.children(os.getpid())) - shims:
        return False
    processes.kill_descendants(os.getpid(), spare=shims)
    for stray in set(processes.children(os.getpid())) - shims:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(stray, os.WNOHANG)
    return True


def kill_lost(folder: str, started: Record, separate: Isolation) -> None:
    """KILL what is left of a lost run that an earlier launcher started: no tree leads to it any more."""
    if started.get("boot_id") != separate.boot_id:
        return
    if separate.uids is None:
        folder = os.path.realpath(folder)  # a stream without a pipe is written as the file that it is
        files = [os.path.join(folder, stream) for stream in control.STREAMS]
        processes.kill_writers([*files, *(f"pipe:[{number}]" for number in started.get("pipes") or ())])
        return
    uid = started.get("uid")
    lock = separate.uids.hold(uid) if isinstance(uid, int) else None
    if lock is not None and isinstance(uid, int):
        processes.UserReach(uid).kill()
        os.close(lock)
