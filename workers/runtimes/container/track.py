"""What a worker knows about one container: its spool, whether to look at it, what was asked of it.

Everything that must outlive the worker is a file of the attempt's control folder. Must not import Django or
ask the engine.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from workers.launcher import control, strays
from workers.runtimes.base import Result
from workers.runtimes.container.output import Spool
from workers.runtimes.engine.image import Image
from workers.runtimes.rules import spool_caps

log = structlog.get_logger(__name__)

#: A container is looked at this often, whatever its engine says or does not say.
_LOOK_S: Final = 30.0
#: Exit codes of what ended by TERM or KILL; a program that handles TERM may choose its own.
_SIGNALLED: Final = (137, 143)


@dataclass(frozen=True)
class StopRequest:
    """A stop that was asked for. Times are seconds since the machine's start.

    ``sent``: the engine took a signal while the container ran; None: nobody knows.
    """

    why: str
    at: float
    deadline: float
    sent: bool | None

    def effective(self, code: int) -> bool:
        """Did it end by this, and not by itself a moment earlier?"""
        return bool(self.sent) or code in _SIGNALLED


class Track:
    """One attempt's container. Used by the watcher, the agent, the events' and the reading thread."""

    def __init__(self, name: str, folder: Path, spec: Mapping[str, Any]) -> None:
        self.name = name
        self.folder = folder
        #: The container's id, once there is one.
        self.identity = ""
        self.image: Image | None = None
        self.digest = ""
        self.told = ""
        #: What its stop waits for, for its owner; empty when for nothing.
        self.waits = ""
        #: Why nobody knows how it ended, for its owner; empty when somebody does, or nobody knows why.
        self.lost = ""
        self.spool = Spool(folder, *spool_caps(spec))
        #: All output has been read after the container's end.
        self.output_complete = False
        #: How it ended; a result is told as often as it is asked for.
        self.result: Result | None = None
        #: Which state of the event stream the log stream was opened under.
        self.generation = -1
        self.followed_at = float("-inf")
        #: Since when the engine calls it running and nothing of it lives.
        self.lifeless_since: float | None = None
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._look_at = time.monotonic() + _LOOK_S
        self._ended_at: float | None = None
        self._stop: StopRequest | None = None
        self._stop_read = False

    # --- when to look --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have happened: look now."""
        self._woken.set()

    def look_again(self, in_s: float) -> None:
        """Look in ``in_s`` seconds at the latest."""
        self._look_at = min(self._look_at, time.monotonic() + max(in_s, 0.0))

    def due(self) -> bool:
        """Is it time to look? Asked by the watcher only, which then looks."""
        if self._woken.is_set() or time.monotonic() >= self._look_at:
            self._woken.clear()
            self._look_at = time.monotonic() + _LOOK_S
            return True
        return False

    def sleep(self, most_s: float) -> None:
        """Until there is something to look at, at most ``most_s`` seconds."""
        self._woken.wait(max(0.0, min(most_s, self._look_at - time.monotonic())))

    def ending_for(self) -> float:
        """Seconds since the watcher first saw the container's end."""
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        return time.monotonic() - self._ended_at

    # --- what is known -------------------------------------------------------------------------------

    def adopt(self, inspected: Mapping[str, Any]) -> None:
        """Take over what an earlier worker made."""
        self.identity = str(inspected["Id"])
        labels = inspected["Config"].get("Labels") or {}
        self.digest = labels.get("gantry.image", self.digest)
        self.note(labels.get("gantry.note", ""))
        self.wake()

    def note(self, text: str) -> None:
        """Add to what the run's owner is told at the end."""
        if text and text not in self.told:
            self.told = f"{self.told}; {text}" if self.told else text

    @property
    def launched(self) -> bool:
        """Was a start ever asked of the engine?"""
        return (self.folder / "launched").exists()

    def mark_launched(self) -> bool:
        """Intent before effect: from here on its container may have run. False: it was said before.

        Raises OSError.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            os.close(os.open(self.folder / "launched", flags, 0o600))
        except FileExistsError:
            return False
        return True

    def end_strays(self) -> bool:
        """Before an attempt is closed whose container the engine calls not started: nothing of it may live.

        False: something does, and cannot be ended yet; then it is looked at again.
        """
        problem = strays.end(self.identity)
        if problem:
            log.warning("container.not_ended", container=self.name, why=problem)
            self.look_again(1.0)
        return not problem

    # --- stopping ------------------------------------------------------------------------------------

    def request_stop(self, why: str, grace_s: float) -> None:
        """Ask for a stop. Of several requests the first reason is kept, and the earliest end."""
        now = control.boottime()
        with self._lock:
            earlier = self._read()
            if earlier is None:
                self._write(StopRequest(why, now, now + max(0.0, grace_s), None))
            elif now + grace_s < earlier.deadline:
                self._write(StopRequest(earlier.why, earlier.at, now + max(0.0, grace_s), earlier.sent))

    def mark_sent(self) -> None:
        """The engine took a signal for it while it ran."""
        with self._lock:
            found = self._read()
            if found is not None and not found.sent:
                self._write(StopRequest(found.why, found.at, found.deadline, True))

    def stop_request(self) -> StopRequest | None:
        """The stop that was asked for, also of an earlier worker, or of the guard."""
        with self._lock:
            return self._read()

    def _read(self) -> StopRequest | None:
        if self._stop is None:
            record = control.read_record(str(self.folder / "stop"))
            if record is not None:
                self._stop = StopRequest(
                    str(record.get("why", "")),
                    float(record.get("at", 0.0)),
                    float(record.get("deadline", 0.0)),
                    record.get("sent"),
                )
        return self._stop

    def _write(self, request: StopRequest) -> None:
        self._stop = request
        self.folder.mkdir(mode=0o700, exist_ok=True)
        control.write_record(
            str(self.folder / "stop"),
            {"why": request.why, "at": request.at, "deadline": request.deadline, "sent": request.sent},
        )
