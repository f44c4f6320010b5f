"""The guard of a node's containers: `python -I -S -X utf8 __main__.py containers FOLDER`.

Outlives the worker. When the worker's last renewal is too old, another node may soon begin the same runs:
then it ends this installation's containers of this node, so that attempts never overlap. Containers of runs
that are never given up (label fence=no) are left alone. What was created and never started is removed, so
that a worker that stood still cannot start it any more. FOLDER holds `lock` (held while it lives), `renewed`
(guard.py) and `engine` (where it listens, whose containers). Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from urllib.parse import quote

from . import background, control, execs, strays
from .engine import Refused, Unreachable, ask
from .guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .control import Record

TICK = 1.0  # seconds between looks
_IDLE = 60.0  # seconds without a renewal that counts and without containers after which it ends
_STOPPED = 30.0  # seconds without a renewal after which no worker is thought to be there


class ContainerGuard:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._boot_id = control.boot_id()
        self._idle_since = control.boottime()
        self._told = ""
        #: Processes of execs that were found once, by control folder.
        self._known: dict[str, execs.Known] = {}

    def look(self) -> bool:
        """One look; False when there is nothing left to guard."""
        engine = control.read_record(os.path.join(self.folder, "engine"))
        if engine is None:
            return self._is_needed(busy=False)
        guard = Guard(self.folder, self._boot_id)
        overdue = guard.overdue()
        if overdue is None:
            age = guard.age()
            # Long before it is overdue a worker that ended in good order has nothing left to guard.
            busy = age is not None and (age < _STOPPED or self._has_work(engine))
            return self._is_needed(busy=busy)
        try:
            left = self._end_all(engine, guard, overdue)
            left = self._end_execs(engine, guard, overdue) or left
        except Unreachable as error:
            self._tell(f"{overdue}, and the engine does not answer: {error}")
            left = True
        return self._is_needed(busy=left)

    def _has_work(self, engine: Record) -> bool:
        """Is there anything of this installation on this node, alive or about to be?"""
        try:
            if self._ask(engine, "GET", "/containers/json?all=1&filters=" + _filters(engine)):
                return True
        except Unreachable:
            return True
        return any(self._open_execs(engine))

    def _is_needed(self, *, busy: bool) -> bool:
        now = control.boottime()
        if busy:
            self._idle_since = now
        return now - self._idle_since < _IDLE

    def _end_all(self, engine: Record, guard: Guard, overdue: str) -> bool:
        """Stop what runs, remove what never ran; True while something of it is left."""
        left = False
        for item in self._ask(engine, "GET", "/containers/json?all=1&filters=" + _filters(engine)) or ():
            try:
                left = self._end_one(engine, guard, overdue, item) or left
            except (Refused, Unreachable, OSError, ValueError, KeyError) as error:
                # Of this one alone: the others are ended all the same, and the next look has it again.
                self._tell(f"{item.get('Names')} is not ended: {error}")
                left = True
        return left

    def _end_one(self, engine: Record, guard: Guard, overdue: str, item: Record) -> bool:
        labels = item.get("Labels") or {}
        if labels.get("gantry.fence") == "no":
            return False
        identity, state = item["Id"], item.get("State")
        if state == "created":
            self._tell(f"{overdue}: {item['Names']} is removed before it starts")
            if problem := strays.end(identity):
                self._tell(f"{item['Names']}: {problem}")
            self._act(engine, "DELETE", f"/containers/{identity}")
            return True
        if state in ("running", "paused", "restarting"):
            self._end(engine, guard, overdue, identity, labels)
            return True
        return False

    def _end(self, engine: Record, guard: Guard, overdue: str, identity: str, labels: Record) -> None:
        name = f"{labels.get('gantry.run')}-{labels.get('gantry.attempt')}"
        path = os.path.join(engine["runs"], control.check_name(name), "stop")
        if signal_name := self._due(path, f"{overdue}: {name} is stopped", guard, sent=True):
            self._act(engine, "POST", f"/containers/{identity}/kill?signal={signal_name}")

    def _due(self, path: str, why: str, guard: Guard, *, sent: bool) -> str:
        """The signal that is due once the request to stop is written down: TERM, in the end KILL, or none."""
        now = control.boottime()
        request = control.read_record(path)
        if request is not None:
            return "" if now < float(request.get("deadline", 0.0)) else "KILL"
        self._tell(why)
        grace = guard.grace()
        try:
            control.write_record(path, {"why": "guard", "at": now, "deadline": now + grace, "sent": sent})
        except OSError as error:
            self._tell(f"{path}: {error}")
        return "TERM" if grace > 0 else "KILL"

    def _end_execs(self, engine: Record, guard: Guard, overdue: str) -> bool:
        """Stop what was started by exec in containers that are not ours; True while something is left."""
        left = False
        for name, place, plan in self._open_execs(engine):
            begun = os.path.exists(os.path.join(place, "launched"))
            path = os.path.join(place, "stop")
            try:
                signal_name = self._due(path, f"{overdue}: the exec of {name} is stopped", guard, sent=begun)
                if begun:
                    left = not signal_name or self._signal_exec(engine, place, plan, signal_name) > 0 or left
            except OSError as error:
                self._tell(f"the exec of {name} is not ended: {error}")
                left = True
        return left

    def _open_execs(self, engine: Record) -> Iterator[tuple[str, str, Record]]:
        """(name, control folder, plan) of what may be given up and has not ended."""
        folder = engine.get("execs") or ""
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            place = os.path.join(folder, name)
            try:
                plan = control.read_record(os.path.join(place, "plan"))
            except OSError as error:
                self._tell(f"{place} cannot be read: {error}")
                continue
            if (
                plan is not None
                and plan.get("fence", True)
                and not os.path.exists(os.path.join(place, "exit"))
            ):
                yield name, place, plan

    def _signal_exec(self, engine: Record, place: str, plan: Record, signal_name: str) -> int:
        """How many processes of an exec were signalled, from here or in its container."""
        told = control.read_record(os.path.join(place, "started")) or {}
        try:
            found = execs.signal(
                lambda *request: ask(engine, *request),
                {**plan, **told},
                signal_name,
                self._known.setdefault(place, set()),
            )
        except (Refused, Unreachable, ValueError, KeyError) as error:
            self._tell(f"{place}: not signalled in its container: {error}")
            return 0
        return found or 0

    def _ask(self, engine: Record, method: str, path: str) -> list[Record] | None:
        """An answer's JSON; None for errors that the engine tells: the next look asks again."""
        try:
            data = ask(engine, method, path)
            return json.loads(data) if data else None
        except Refused as error:
            if error.status >= 500:
                raise Unreachable(str(error)) from error
            return None
        except ValueError as error:
            raise Unreachable(str(error)) from error

    @staticmethod
    def _act(engine: Record, method: str, path: str) -> None:
        """Raises Refused for what concerns this container alone, a 5xx included; Unreachable."""
        try:
            ask(engine, method, path)
        except Refused as error:
            if error.status >= 500:
                raise

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, file=sys.stderr, flush=True)


def _filters(engine: Record) -> str:
    labels = [f"gantry.installation={engine['installation']}", f"gantry.node={engine['node']}"]
    return quote(json.dumps({"label": labels}))


def main(arguments: list[str]) -> None:
    """Return when a guard guards, which goes on by itself; exit code 75: another one has this folder."""
    background.begin(arguments[0], "guard.log")
    guard = ContainerGuard(arguments[0])
    while guard.look():
        time.sleep(TICK)
