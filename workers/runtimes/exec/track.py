"""What a worker knows about one exec, and what the reading thread tells it.

Everything that must outlive the worker is a file of the attempt's control folder: ``plan`` (container, exec,
mark: before anything is created), ``launched``, ``told`` (what the wrapper said at its start), ``at`` (which
chunk of output comes next), ``stop``, the spool. Must not import Django or ask the engine.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from workers.launcher import control
from workers.logs.capture import STDOUT
from workers.runtimes.container.track import Track
from workers.runtimes.engine.link import Channel
from workers.runtimes.exec.scripts import BLOCK
from workers.runtimes.exec.stream import ExecStream, Lines

#: Seconds between two looks for new output: from quick, while something comes, to slow.
_POLL_S: Final = (0.02, 1.0)


class ExecTrack(Track):
    """One attempt's exec. The reading thread calls ``output`` and ``line``, the watcher everything else."""

    def __init__(self, name: str, folder: Path, spec: Mapping[str, Any]) -> None:
        super().__init__(name, folder, spec)
        self.plan: dict[str, Any] = control.read_record(str(folder / "plan")) or {}
        told = control.read_record(str(folder / "told")) or {}
        #: Process of the command inside the container, where its output is kept ("" = nowhere).
        self.session = str(told.get("session") or "")
        self.files = str(told.get("files") or "")
        self.engine_pid: int | None = told.get("pid")
        self.begun_at: float | None = told.get("at")
        #: The stream is a reader's, not the wrapper's; its last answer says that the wrapper lives.
        self.reading = False
        self.alive = False
        self.stream: ExecStream | None = None
        self._channel: Channel | None = None
        #: S or X was heard, or the stream ended.
        self.heard = threading.Event()
        self.started = bool(told)
        self.missing = False
        self.code: int | None = None
        self.ended_ran_s = 0.0
        #: The wrapper is dead, and nobody wrote down how the command ended.
        self.gone = False
        self.lost = False
        #: D was heard; output was asked for since.
        self.over = False
        self._asked_over = False
        #: Processes that the last signal found; None while its answer has not come.
        self.signalled: int | None = None
        #: The last answer to a request: (is there a further chunk, does the wrapper live, the recorded code).
        self.answer: tuple[bool, bool, int | None] | None = None
        self.asked_at: float | None = None
        #: The last moment at which the stream said anything.
        self.heard_at = 0.0
        #: How often in a row the wrapper was found dead without a result.
        self.dead = 0
        #: Called when there is something to do for whoever asks for output.
        self.on_news: Callable[[], None] = lambda: None
        self.ask_at = 0.0
        self.lock = threading.Lock()
        self.opened_at = float("-inf")
        self._poll = _POLL_S[0]
        self._grew = False
        at = control.read_record(str(folder / "at")) or {}
        #: Chunk that is read, where in the output it begins, what before it may be the beginning of a line.
        self._chunk, self._base = int(at.get("chunk", 0)), int(at.get("base", 0))
        self._carried = bytes.fromhex(str(at.get("held", "")))
        self._taken = 0
        self.lines: Lines | None = None
        self.wake()  # whoever waits for it has to look: it may be an earlier worker's

    # --- the plan ------------------------------------------------------------------------------------

    def save_plan(self, **more: Any) -> None:
        """Intent before effect. Raises OSError."""
        self.plan = {**self.plan, **more}
        control.write_record(str(self.folder / "plan"), self.plan)

    @property
    def plain(self) -> bool:
        """It runs without the wrapper: its container has no shell."""
        return bool(self.plan.get("plain"))

    @property
    def kept(self) -> bool:
        return bool(self.files)

    def save_told(self) -> None:
        """What the wrapper said at its start. Raises OSError."""
        record = {
            "session": self.session,
            "files": self.files,
            "pid": self.engine_pid,
            "at": self.begun_at,
        }
        control.write_record(str(self.folder / "told"), record)

    # --- the stream ----------------------------------------------------------------------------------

    def open(self, channel: Channel, *, reading: bool) -> ExecStream:
        """A new stream will be read; the caller holds the spool's lock. ``reading``: it is a reader's."""
        word = "" if self.plain else str(self.plan["word"])
        self.reading, self.alive = reading, False
        self.lines = Lines(word.encode()) if word else None
        self.stream = ExecStream(self, self.lines)
        self._channel = channel
        self.asked_at = self.answer = self.signalled = None
        self.heard.clear()
        self.opened_at = time.monotonic()
        self._taken = self._size() - self._base
        if self.lines is not None and self._taken < 0:
            self.lines.held = self._carried[self._taken :]
        return self.stream

    def connected(self) -> bool:
        return self._channel is not None and self.spool.open

    def send(self, text: str) -> bool:
        """One request line; False when nobody will read it."""
        channel = self._channel
        if channel is None or not self.spool.open:
            return False
        try:
            channel.send(f"{text}\n".encode(), 1.0)
        except OSError:
            return False
        return True

    def signal(self, name: str, patience_s: float) -> int | None:
        """Let the wrapper signal all that belongs to the command; how many, None without an answer."""
        self.signalled = None
        if not (self.connected() and self.started and self.send(f"k {name} {self.session}")):
            return None
        deadline = time.monotonic() + patience_s
        while (found := self._found()) is None and self.connected() and time.monotonic() < deadline:
            time.sleep(0.002)
        return found

    def _found(self) -> int | None:
        return self.signalled

    def ask_output(self) -> bool:
        """Ask for what is new."""
        at = self._taken + len(self.lines.held if self.lines else b"")
        if self.stream is not None:
            self.stream.skip = at % BLOCK
        self.answer, self._grew = None, False
        self.asked_at = self.heard_at = time.monotonic()
        return self.send(f"r {self._chunk} {at // BLOCK}")

    def next_chunk(self) -> None:
        """All of this chunk has been taken: the next request lets it be removed. Raises OSError."""
        held = self.lines.held if self.lines else b""
        base = self._size() + len(held)
        control.write_record(
            str(self.folder / "at"), {"chunk": self._chunk + 1, "base": base, "held": held.hex()}
        )
        self._chunk, self._base, self._carried, self._taken = self._chunk + 1, base, held, -len(held)

    def pause_s(self) -> float:
        """Until the next request for output: short while something comes."""
        self._poll = _POLL_S[0] if self._grew else min(self._poll * 2, _POLL_S[1])
        return self._poll

    # --- told by the reading thread ------------------------------------------------------------------

    def output(self, data: bytes) -> None:
        """Raises OSError when it cannot be stored."""
        self.heard_at = time.monotonic()
        self.spool.take([(STDOUT, b"", data)])
        self._taken += len(data)
        self._grew = True

    def line(self, letter: str, words: list[str]) -> None:
        self.heard_at = time.monotonic()
        number = int(words[0]) if words and words[0].isdigit() else None
        if letter == "S":
            self.session = "" if number in (None, 0) else words[0]
            self.files = " ".join(words[2:]) if words[1:2] == ["1"] else ""
            self.started = True
            # A brief command has ended by then, and all of it comes with one answer.
            self.ask_at = self.heard_at + _POLL_S[0]
            self.heard.set()
        elif letter == "X":
            self.missing = True
        elif letter == "E" and number is not None:
            self.save_end(number)
        elif letter == "D":
            self.over = True
        elif letter == "A":
            code = int(words[2]) if len(words) > 2 and words[2].isdigit() else None
            self.answer, self.asked_at = (words[:1] == ["1"], words[1:2] == ["1"], code), None
            self.alive = words[1:2] == ["1"]
        elif letter == "K":
            self.signalled = number or 0
        elif letter == "N":
            self.note("the end of its output is missing, its container has no space left")
        self.on_news()
        self.wake()

    # --- asking for output (the pump's thread) ---------------------------------------------------------

    def pump(self) -> float:
        """Ask for output when it is time; seconds until the next look. Raises OSError."""
        if not self.connected() or not self.started or self.code is not None or self.asked_at is not None:
            return 60.0
        if self.lines is not None and not self.kept and not self.reading:
            return 60.0  # its output comes by itself, and so does its end
        answer, now = self.answer, time.monotonic()
        if answer is not None:
            self.answer = None
            further, alive, code = answer
            self.dead = 0 if alive or further or self._grew else self.dead + 1
            if self.dead > 1:
                # The wrapper is dead and nothing more comes.
                if code is not None:
                    self.note("the end of its output is missing")
                    self.save_end(code)
                else:
                    self.gone = True
                self.wake()
                return 60.0
            if further:
                self.next_chunk()
            self.ask_at = now if further else now + self.pause_s()
        if self.over:
            self.ask_at = min(self.ask_at, now + (_POLL_S[0] if self._asked_over else 0.0))
        if now < self.ask_at:
            return self.ask_at - now
        self._asked_over = self.over
        self.ask_output()
        return 60.0

    # --- the rest ------------------------------------------------------------------------------------

    def save_end(self, code: int) -> None:
        """The command's own end, with its last byte of output. Raises OSError."""
        record = {"code": code, "missing": self.missing, "ran_s": self.ran_s(), "note": self.told}
        control.write_record(str(self.folder / "ended"), record)
        self.code, self.ended_ran_s = code, self.ran_s()

    def save_lost(self) -> None:
        """Nobody will ever know how it ended. Raises OSError."""
        control.write_record(str(self.folder / "ended"), {"lost": True, "note": self.told})
        self.lost = True

    def read_end(self) -> bool:
        """Has it ended, as far as any worker has seen? Then its output is in the spool."""
        record = control.read_record(str(self.folder / "ended")) if self.code is None else None
        if record is not None and record.get("lost"):
            self.note(str(record.get("note") or ""))
            self.lost = True
        elif record is not None:
            self.missing = bool(record["missing"])
            self.note(str(record.get("note") or ""))
            self.code, self.ended_ran_s = int(record["code"]), float(record["ran_s"])
        return self.lost or self.code is not None

    def ran_s(self) -> float:
        """Seconds since its start."""
        return 0.0 if self.begun_at is None else max(0.0, control.boottime() - self.begun_at)

    def _size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self.spool.path(STDOUT).stat().st_size
        return 0
