"""How a process beside the worker begins that goes on by itself: alone in its folder, in the background.

Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys

from . import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LOG_LIMIT = 256 * 1024  # bytes
_TAKEN = 75


def begin(folder: str, log: str, ready: Callable[[], None] = lambda: None) -> None:
    """Return in a process that lives on; the one that was started ends once `ready` is done.

    `lock` of the folder is held from here on, and what is said goes to its file `log`. Exit code 75: another
    process has this folder.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if control.try_lock(os.path.join(folder, "lock")) is None:
        sys.exit(_TAKEN)
    file = os.open(os.path.join(folder, log), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(file).st_size > _LOG_LIMIT:
        os.ftruncate(file, 0)
    os.dup2(file, 2)
    ready()
    if os.fork():
        os._exit(0)  # the lock is the child's, too
