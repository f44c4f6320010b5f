"""The guard's clock: is the worker still renewing? Persisted: a restart of the launcher forgets nothing.

Standard library only. Ages are measured by the clock that counts from the machine's start, so neither a
change of the time of day nor a suspended machine fools it; a renewal of an earlier start is ignored.
"""

from __future__ import annotations

import contextlib
import os

from . import control

GRACE = 5.0  # seconds between TERM and KILL when the guard stops a run, if there is time for them
_RESERVE = 2.0  # seconds before the node counts as lost at which everything must be dead


class Guard:
    def __init__(self, control_dir: str, boot_id: str) -> None:
        self._path = os.path.join(control_dir, "renewed")
        self._boot_id = boot_id
        self._at: float | None = None
        self._kill_after = 0.0
        self._lost_after: float | None = None
        with contextlib.suppress(OSError, ValueError), open(self._path) as file:
            boot, at, kill_after, *rest = file.read().split()
            if boot == boot_id:
                self._at, self._kill_after = float(at), float(kill_after)
                self._lost_after = float(rest[0]) if rest else None

    def renew(self, kill_after: float, lost_after: float | None = None, as_of: float | None = None) -> None:
        """The worker was alive at `as_of` (None: now). Without newer news it is overdue `kill_after` later.

        A worker may stand still between learning that and telling it, so the moment of telling counts for
        nothing. `lost_after` is when another node may begin the work again.
        """
        now = control.boottime()
        at = now if as_of is None else min(float(as_of), now)
        if self._at is not None and at < self._at:
            return
        lost_after = None if lost_after is None else float(lost_after)
        words = [self._boot_id, f"{at:.3f}", f"{kill_after:.3f}"]
        if lost_after is not None:
            words.append(f"{lost_after:.3f}")
        # First what counts: a note that cannot be written must not kill what runs.
        self._at, self._kill_after, self._lost_after = at, kill_after, lost_after
        control.overwrite(self._path, (" ".join(words) + "\n").encode())

    def age(self) -> float | None:
        """Seconds since the last renewal; None when there was none since the machine started."""
        return None if self._at is None else control.boottime() - self._at

    def overdue(self, as_of: float | None = None) -> str | None:
        """Why fenced runs must not live here any more; None while they may, or while nobody ever renewed.

        With `as_of`: why what a worker knew at that moment is too old to start something now.
        """
        if self._at is None:
            return None
        age = control.boottime() - (self._at if as_of is None else min(as_of, self._at))
        if age <= self._kill_after:
            return None
        return f"the worker's last renewal is {age:.1f} s old, the limit is {self._kill_after:.1f} s"

    def grace(self) -> float:
        """Seconds between TERM and KILL now: fewer, or none, when the node is about to count as lost."""
        if self._at is None or self._lost_after is None:
            return GRACE
        return max(0.0, min(GRACE, self._at + self._lost_after - _RESERVE - control.boottime()))
