"""A few runs inside the launcher itself, before it serves.

They prove that a command can be started here and its end recorded, before anybody depends on it. And they
warm the interpreter: caches that are filled before the fork need not be filled, page by page, in every shim.
Standard library only.
"""

from __future__ import annotations

import os
import signal

from . import control, removal, shim
from .handover import Handed
from .orders import Order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .isolation import Isolation

_ROUNDS = 10  # the interpreter specialises code from its eighth call on


def rehearse(control_dir: str, separate: Isolation) -> None:
    """Raises OSError when runs cannot be recorded here. Leaves no trace."""
    folder = os.path.join(control_dir, "rehearsal")
    removal.remove(folder)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for _ in range(_ROUNDS):
            _round(folder, separate)
            removal.remove(folder)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.chdir("/")


def _round(folder: str, separate: Isolation) -> None:
    os.makedirs(os.path.join(folder, "scratch"), 0o700)
    request = {"name": "rehearsal", "argv": ["true"], "env": {}, "scratch": os.path.join(folder, "scratch")}
    order = Order(request)
    lock = control.try_lock(os.path.join(folder, "lock"))
    if lock is None:
        raise OSError(f"cannot lock a file in {folder}: locks do not work on this file system")
    plain = separate.without()
    handed = Handed(order, folder, lock, plain)
    read, handed.report = os.pipe()
    try:
        trial = shim.Shim(order, handed, plain)
        trial.prepare()
        trial.execute()
        trial.watch()
        trial.close()
    finally:
        os.close(read)
        os.close(lock)
        handed.close()
    if control.state_of(folder)["state"] != control.EXITED:
        raise OSError(f"a trial run in {folder} left no record of its end")
