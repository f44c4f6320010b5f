"""launcher.log: what the launcher and its shims have to say to an operator, bounded in size.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time

_LIMIT = 1024 * 1024  # bytes of launcher.log before it becomes launcher.log.1


def open_log(control_dir: str) -> None:
    """Standard output and error go to launcher.log from here on."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    file = os.open(os.path.join(control_dir, "launcher.log"), flags, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def bound(control_dir: str) -> None:
    """Begin a new file when the log has grown too long; one old file is kept."""
    path = os.path.join(control_dir, "launcher.log")
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > _LIMIT and os.path.samestat(os.fstat(2), os.stat(path)):
            os.rename(path, path + ".1")
            open_log(control_dir)


def log(message: str) -> None:
    """One line to launcher.log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} {message}\n".encode(errors="replace"))
