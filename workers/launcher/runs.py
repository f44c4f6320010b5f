"""The runs that live under this launcher: starting, following their shims, stopping, the guard.

Standard library only. It knows no sockets but the pipes of its shims: what clients are told goes through the
two callbacks that the server gives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal

from . import control, isolation, remains, replies, shim
from .guard import Guard
from .handover import Handed
from .journal import log
from .orders import Order, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .control import Record
    from .isolation import Isolation

    Answer = Callable[[bytes], None]  # takes the inside of a JSON object


class Live:
    """One running shim, or one about to be forked."""

    def __init__(self, name: str, folder: str, *, fence: bool, inherited: bool = False) -> None:
        self.name = name
        self.folder = folder
        self.fence = fence
        self.inherited = inherited  # started by an earlier launcher: no pipe, no child of ours
        self.process = 0
        self.pipe: int | None = None
        self.buffer = b""
        self.starting = not inherited  # nothing is known of it yet; `waiting` wants to know
        self.failure = f"the shim of {name} died before its command started"
        self.ended = False
        self.collected = False
        self.guarded = False
        self.waiting: list[tuple[Answer, bool]] = []  # and: did the run exist when it was asked for?


class Runs:
    def __init__(
        self,
        control_dir: str,
        separate: Isolation,
        selector: selectors.BaseSelector,
        publish: Callable[[bytes], None],
    ) -> None:
        self.control_dir = control_dir
        self.separate = separate
        self.live: dict[str, Live] = {}
        self._selector = selector
        self._publish = publish
        self._queue: list[tuple[Live, Order, Handed]] = []
        self._ending: list[Live] = []  # the pipe is closed, the process is not yet collected
        self.guard = Guard(control_dir, separate.boot_id)
        self._adopt()

    # --- starting -----------------------------------------------------------------------------------

    def start(self, request: Record, answer: Answer) -> None:
        """Start a run once, however often it is asked for. `answer` is called when its state is known.

        Raises RefusedError.
        """
        order = Order(request)
        folder = control.run_dir(self.control_dir, order.name)
        known = self.live.get(order.name)
        if known is not None and known.starting:
            known.waiting.append((answer, True))
            return
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        lock = control.try_lock(os.path.join(folder, "lock"))
        if lock is None:
            answer(replies.with_history(replies.state(control.state_of(folder)), existed=True))
            return
        if any(os.path.exists(os.path.join(folder, record)) for record in ("exit", "started")):
            os.close(lock)
            answer(replies.with_history(replies.state(control.state_of(folder)), existed=True))
            return
        try:
            self._refuse(order, folder)
            control.reserve(lock)
            handed = Handed(order, folder, lock, self.separate)
        except OSError as error:
            os.close(lock)
            self._ungroup(order.name)
            raise RefusedError("start_failed", f"cannot prepare {order.name}: {error}") from error
        except RefusedError:
            os.close(lock)
            raise
        entry = self.live[order.name] = Live(order.name, folder, fence=order.fence)
        entry.waiting.append((answer, False))
        self._queue.append((entry, order, handed))

    def _ungroup(self, name: str) -> None:
        if self.separate.groups is not None:
            self.separate.groups.remove(name)

    def fork_queued(self) -> None:
        """Fork the shims of all requests that came together: pages are copied once for all of them."""
        queue, self._queue = self._queue, []
        for entry, order, handed in queue:
            try:
                self._fork(entry, order, handed)
            except OSError as error:
                del self.live[entry.name]
                self._ungroup(entry.name)
                self._answer(entry, replies.start_failed(f"cannot start a process for {entry.name}: {error}"))

    def _refuse(self, order: Order, folder: str) -> None:
        if self.separate.refusal:
            raise RefusedError("isolation", self.separate.refusal)
        if order.isolation == isolation.NAMESPACES != self.separate.mode:
            raise RefusedError(
                "isolation", f"this launcher has no namespaces for commands: {self.separate.reason}"
            )
        if os.path.exists(os.path.join(folder, "stop")):
            raise RefusedError("stopped", f"{order.name} was stopped before it started: it will not start")
        overdue = self.guard.overdue(order.as_of)
        if order.fence and overdue:
            raise RefusedError("fenced", f"{overdue}: renew first, then start {order.name}")

    def _fork(self, entry: Live, order: Order, handed: Handed) -> None:
        read, handed.report = os.pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            entry.process = self.separate.fork()
            if entry.process == 0:
                shim.run(order, handed, self.separate)
        except OSError:
            os.close(read)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            handed.close()
            os.close(handed.lock)
        os.set_blocking(read, False)
        entry.pipe = read
        self._selector.register(read, selectors.EVENT_READ, entry)

    # --- following ----------------------------------------------------------------------------------

    def hear(self, entry: Live) -> None:
        """Read what a shim reports; the end of its pipe is the end of the shim."""
        if entry.pipe is None:
            return
        try:
            data = os.read(entry.pipe, 65536)
        except BlockingIOError:
            return
        if data:
            *lines, entry.buffer = (entry.buffer + data).split(b"\n")
            for line in lines:
                self._heard(entry, *line.split(b" ", 1))
            return
        self._selector.unregister(entry.pipe)
        os.close(entry.pipe)
        entry.pipe = None
        self._ending.append(entry)
        self.collect()

    def _heard(self, entry: Live, kind: bytes, record: bytes) -> None:
        # What the shim wrote is JSON already: it is passed on as it is.
        if kind == b"started":
            self._answer(entry, replies.started(record))
        elif kind == b"error":
            # Answered when the shim is gone and its lock is free: then the start can be asked for again.
            entry.ended, entry.failure = True, json.loads(record)["message"]
        elif kind == b"exit":
            entry.ended = True
            self._ungroup(entry.name)  # no process is left in it, though the shim has a moment to live
            self._publish(replies.event(entry.name, control.EXITED, record))

    @staticmethod
    def _answer(entry: Live, reply: bytes) -> None:
        entry.starting = False
        for answer, existed in entry.waiting:
            answer(replies.with_history(reply, existed))
        entry.waiting.clear()

    def collect(self) -> None:
        """Collect shims that ended, and kill what a killed shim left to us."""
        for entry in list(self._ending):
            if not entry.collected:
                entry.collected = os.waitpid(entry.process, os.WNOHANG)[0] != 0
            if not entry.collected or (not entry.ended and self.kill_strays()):
                continue
            self._ending.remove(entry)
            self._forget(entry)

    def _forget(self, entry: Live) -> None:
        if self.live.get(entry.name) is entry:
            del self.live[entry.name]
            self._ungroup(entry.name)
        if entry.waiting:
            # It failed, or died at its start: perhaps between writing `started` and telling us.
            state = control.state_of(entry.folder)
            over = state["state"] in (control.EXITED, control.LOST)
            self._answer(entry, replies.state(state) if over else replies.start_failed(entry.failure))
        if not entry.ended:
            self._publish_end(entry)

    def _publish_end(self, entry: Live) -> None:
        state = control.state_of(entry.folder)
        if state["state"] in (control.EXITED, control.LOST):
            self._publish(replies.event(entry.name, state["state"], control.dump(state["exit"])))

    def kill_strays(self) -> bool:
        """A child that is no shim was orphaned by one that was killed. True while there is any."""
        return remains.kill_strays(frozenset(entry.process for entry in (*self.live.values(), *self._ending)))

    @property
    def ending(self) -> bool:
        """Is a shim's process still to be collected?"""
        return bool(self._ending)

    @property
    def has_inherited(self) -> bool:
        """Is there a shim of an earlier launcher?"""
        return any(entry.inherited for entry in self.live.values())

    def states(self) -> list[Record]:
        """Every attempt with a control folder: [{name, state}]."""
        root = os.path.join(self.control_dir, "runs")
        return [
            {"name": name, "state": control.state_of(os.path.join(root, name))["state"]}
            for name in sorted(os.listdir(root))
        ]

    # --- inherited from an earlier launcher ---------------------------------------------------------

    def _adopt(self) -> None:
        root = os.path.join(self.control_dir, "runs")
        os.makedirs(root, 0o700, exist_ok=True)
        for name in os.listdir(root):
            try:
                self._adopt_one(name, os.path.join(root, name))
            except Exception as error:  # noqa: BLE001 (what one has left keeps no other from being guarded)
                log(f"{name} is not taken over: {error!r}")
        if self.separate.groups is not None:
            self.separate.groups.sweep(set(self.live))

    def _adopt_one(self, name: str, folder: str) -> None:
        if os.path.exists(os.path.join(folder, "exit")):
            return
        state = control.state_of(folder)
        started = state["started"] or {}
        if state["state"] == control.RUNNING:
            self.live[name] = Live(name, folder, fence=bool(started.get("fence", True)), inherited=True)
        elif state["state"] == control.LOST:
            remains.kill_lost(folder, started, self.separate)

    def tidy(self, *, last: bool = False) -> None:
        """Control groups that could not be removed at once. `last`: whichever of ours is empty."""
        if self.separate.groups is not None:
            self.separate.groups.tidy()
            if last:
                self.separate.groups.sweep(set())

    def poll_inherited(self) -> None:
        """Shims of an earlier launcher are not our children: their locks say when they end."""
        for entry in [entry for entry in self.live.values() if entry.inherited]:
            try:
                self._poll_one(entry)
            except Exception as error:  # noqa: BLE001 (nor does it keep the guard from its look)
                if entry.failure != (failure := f"{entry.name} cannot be looked at: {error!r}"):
                    entry.failure = failure
                    log(failure)

    def _poll_one(self, entry: Live) -> None:
        if not control.lock_held(entry.folder):
            self.live.pop(entry.name, None)
            self._ungroup(entry.name)
            state = control.state_of(entry.folder)
            if state["state"] == control.LOST:
                remains.kill_lost(entry.folder, state["started"] or {}, self.separate)
            self._publish_end(entry)

    # --- stopping -----------------------------------------------------------------------------------

    def stop(self, name: str, why: str, grace: float) -> Record:
        """Ask the run to stop; its state as it is now."""
        folder = control.run_dir(self.control_dir, name)
        state = control.state_of(folder)
        if state["state"] in (control.RUNNING, control.PREPARED):
            control.write_stop(folder, why, grace)
            control.signal_shim(folder)
        return state

    def enforce(self) -> None:
        """Stop every fenced run while the worker's renewal is overdue: another node may have it by now."""
        overdue = self.guard.overdue()
        for entry in list(self.live.values()):
            if overdue is None:
                entry.guarded = False
            elif entry.fence and not entry.guarded and not entry.ended:
                entry.guarded = True
                log(f"guard: {entry.name} is stopped: {overdue}")
                with contextlib.suppress(OSError):
                    self.stop(entry.name, "guard", self.guard.grace())
