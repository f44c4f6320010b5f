"""What a worker knows about one exec.

Everything that must outlive the worker is a file of the attempt's control folder: ``plan`` (container,
exec, mark: before anything is created), ``launched``, ``stop``; the listener of the node writes
``started``, ``stdout`` and ``exit`` (``launcher/listener.py``). Must not import Django or ask the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.launcher import control
from workers.logs.capture import STDOUT
from workers.runtimes.container.track import Track


class ExecTrack(Track):
    """One attempt's exec."""

    def __init__(self, name: str, folder: Path, spec: Mapping[str, Any]) -> None:
        super().__init__(name, folder, spec)
        self.plan: dict[str, Any] = control.read_record(str(folder / "plan")) or {}
        #: {pid, born, at} of its main process as the engine's machine numbers it; empty until it is known.
        self.process: dict[str, Any] = control.read_record(str(folder / "started")) or {}
        #: What the listener wrote at its end: code, never or lost, with ran_s, pid, note.
        self.end: dict[str, Any] | None = None
        #: Processes of it that were found once.
        self.found: set[tuple[int, int]] = set()
        #: A listener was asked for last at this moment (monotonic).
        self.asked_at = float("-inf")
        self.lock = threading.Lock()
        self.wake()  # whoever waits for it has to look: it may be an earlier worker's

    def save_plan(self, **more: Any) -> None:
        """Intent before effect. Raises OSError."""
        self.plan = {**self.plan, **more}
        control.write_record(str(self.folder / "plan"), self.plan)

    @property
    def wrapped(self) -> bool:
        """Its command comes by standard input."""
        return bool(self.plan.get("wrapped"))

    @property
    def listened(self) -> bool:
        """Does somebody listen to it?"""
        return control.lock_held(str(self.folder))

    def has_ended(self) -> bool:
        """Has it ended, as far as anybody wrote down? Then all that will ever come is in its spool."""
        if self.end is None:
            self.end = control.read_record(str(self.folder / "exit"))
            if self.end is not None:
                self.note(str(self.end.get("note") or ""))
                self.process = (
                    {**self.process, "pid": self.end["pid"]} if self.end.get("pid") else self.process
                )
        return self.end is not None

    def missing(self) -> dict[int, str]:
        """What its end says of output that is missing, as ``SpoolReader`` asks for it."""
        self.has_ended()
        end = self.end or {}
        return {STDOUT: end["untold"]} if "untold" in end else {}

    def forget_end(self) -> None:
        """Nothing of it ran: another exec takes its place. Raises OSError."""
        (self.folder / "exit").unlink()
        self.end, self.process = None, {}

    def started(self) -> bool:
        """Is a process of it known?"""
        if not self.process:
            self.process = control.read_record(str(self.folder / "started")) or {}
        return bool(self.process.get("pid"))
