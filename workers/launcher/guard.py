"""The guard's clock: is the worker still renewing? Persisted, so that a restart of the launcher forgets nothing.

Standard library only. Ages are measured by the clock that counts from the machine's start, so neither a
change of the time of day nor a suspended machine fools it; a renewal of an earlier start is ignored.
"""

from __future__ import annotations

import contextlib
import os

from . import control

GRACE = 5.0  # seconds between TERM and KILL when the guard stops a run


class Guard:
    def __init__(self, control_dir: str, boot_id: str) -> None:
        self._path = os.path.join(control_dir, "renewed")
        self._boot_id = boot_id
        self._at: float | None = None
        self._kill_after = 0.0
        with contextlib.suppress(OSError, ValueError), open(self._path) as file:
            boot, at, kill_after = file.read().split()
            if boot == boot_id:
                self._at, self._kill_after = float(at), float(kill_after)

    def renew(self, kill_after: float) -> None:
        """The worker is alive. Without another renewal within `kill_after` seconds, overdue() says so."""
        now = control.boottime()
        control.write_bytes(self._path, f"{self._boot_id} {now:.3f} {kill_after:.3f}\n".encode())
        self._at, self._kill_after = now, kill_after

    def age(self) -> float | None:
        """Seconds since the last renewal; None when there was none since the machine started."""
        return None if self._at is None else control.boottime() - self._at

    def overdue(self) -> str | None:
        """Why fenced runs must not live here any more; None while they may, or while nobody ever renewed."""
        age = self.age()
        if age is None or age <= self._kill_after:
            return None
        return f"the worker's last renewal is {age:.1f} s old, the limit is {self._kill_after:.1f} s"
