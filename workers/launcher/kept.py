"""One exec that is listened to: from its start, or from where nobody listened any more, to its recorded end.

Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time

from . import control, execs
from .attached import Cut, Stream
from .ends import Ends
from .engine import Refused, Unreachable, ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

_LOOK = (0.02, 1.0)  # seconds between two questions after the process, from the first on
_QUIET = 0.2  # seconds without output after which one that the engine calls ended is over
_HELD = 3.0  # seconds after its end at which it is over in any case
_EVENT = 2.0  # seconds that the event of its end may come later than the engine's record
_NEVER_MOST = 4096  # bytes of what the engine says in the place of output


class Kept:
    """`order` as in listener.py; `answer` is what to say once it is `known`, and again once it is `over`."""

    def __init__(self, order: Record, ends: Ends) -> None:
        self._order = order
        self._engine = order["engine"]
        self._id = order["exec"]
        self._ends = ends
        self._at = control.boottime()
        self._told: Record = {}
        self._cut = order["do"] != "start"
        self._place = self._lock = -1
        self.known = threading.Event()
        self.over = threading.Event()
        self.answer: Record = {}

    def live(self) -> None:
        """To its end. Raises nothing that the engine or the disk can cause."""
        folder = self._order["folder"]
        with contextlib.ExitStack() as held:
            try:
                lock = control.try_lock(os.path.join(folder, "lock"))
                if lock is None:
                    self.conclude({"away": "another listener has it"})
                    return
                self._lock = lock
                held.callback(os.close, lock)
                self._place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(os.close, self._place)
                control.reserve(lock)
                stream = Stream(self._place, self._order)
                held.callback(stream.close)
            except OSError as error:
                self.conclude({"failed": f"control folder: {error}"})  # nothing was sent
                return
            self._listen(stream)

    def _listen(self, stream: Stream) -> None:
        self._ends.listen(self._engine, since=self._order.get("since"))
        if not self._cut:
            try:
                stream.open()
            except Refused as error:
                self.conclude({"refused": [error.status, error.words]})
                return
            except Cut as error:
                self._cut = True
                tell(f"{self._id}: {error}")
            else:
                self._at = control.boottime()
                self._cut = not self._drain(stream)
            stream.hang_up()
        while not self.over.is_set():
            end = self._end(stream)
            if end is not None:
                self._write({**end, **stream.told(cut=self._cut and "never" not in end)})

    def _drain(self, stream: Stream) -> bool:
        """Take all output; False when the stream was cut."""
        wait, look_at, over_at = _LOOK[0], time.monotonic() + _LOOK[0], None
        while True:
            try:
                if not stream.take(_QUIET if over_at else wait):
                    return True
            except Cut:
                return False
            now = time.monotonic()
            if self._told:
                wait = _LOOK[1]
            elif now >= look_at and stream.begun:
                with contextlib.suppress(Refused, Unreachable):
                    self._learn(self._ask())
                wait = min(wait * 2, _LOOK[1])
                look_at = now + wait
            if over_at is None and self._ends.code(self._id) is not None:
                over_at = now + _HELD  # what it left running may hold its output open
            if over_at is not None and (stream.quiet or now > over_at):
                return True

    def _ask(self) -> Record:
        answer: Record = json.loads(ask(self._engine, "GET", f"/exec/{self._id}/json"))
        return answer

    def _learn(self, told: Record) -> None:
        """Its process, once the engine knows it."""
        pid = int(told.get("Pid") or 0)
        if not pid or self._told:
            return
        self._told = {"pid": pid, "born": execs.born_at(pid), "at": self._at}
        with contextlib.suppress(OSError):  # whoever needs it can ask the engine
            control.write_record("started", self._told, self._place)
        self.answer = self._told
        self.known.set()

    def _end(self, stream: Stream) -> Record | None:
        """How it ended: {"code"}, {"never"} or {"lost"}; None while nobody knows, or when it never began."""
        code = self._ends.code(self._id)
        try:
            told = self._ask()
        except (Refused, Unreachable) as error:
            if isinstance(error, Unreachable) or error.status >= 500:
                time.sleep(_LOOK[1])
                return None
            lost = "the engine does not know it any more: it was restarted, or its container is gone"
            return {"lost": lost} if code is None else {"code": code}
        pid, said = int(told.get("Pid") or 0), told.get("ExitCode")
        if not pid and not told.get("Running"):
            if said is None:
                self.conclude({"away": "nothing was started"})
                return None
            return {"never": stream.words(_NEVER_MOST) or f"the engine says {said}"}
        if stream.missing_program:
            return {"never": ""}
        self._learn(told)
        if told.get("Running") and code is None:
            self._ends.wait(self._id, _LOOK[1])
            return None
        if code is None and said == 126 and self._cut:
            # An engine whose stream was cut says 126 whatever the code was; its event has the true one.
            code = self._ends.wait(self._id, _EVENT)
            if code is None:
                return {"lost": "its stream was cut, and the engine says 126 for every such end"}
        return {"code": said if code is None else code}

    def _write(self, end: Record) -> None:
        record = {**self._told, **end, "ran_s": max(0.0, control.boottime() - self._at)}
        while os.fstat(self._place).st_nlink:  # else nobody wants to know any more
            try:
                control.write_exit(record, self._place, self._lock)
                break
            except OSError as error:  # the folder has to be writable again
                tell(f"{self._id}: its end is not written: {error}")
                time.sleep(1.0)
        self.conclude({"end": record})

    def conclude(self, answer: Record) -> None:
        """There is nothing more to say."""
        self.answer = answer
        self.known.set()
        self.over.set()


def tell(text: str) -> None:
    """A line of the listener's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, file=sys.stderr, flush=True)
