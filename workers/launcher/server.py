"""The launcher's socket: one thread, newline-delimited JSON, a reply for each request with its id.

Standard library only. A subscribed connection is also told {"event": "exit", ...} of every run. Only
processes of the same user may connect.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import sys
import time

from . import cgroup, control, journal, replies
from .isolation import Isolation
from .journal import log
from .orders import RefusedError
from .runs import Runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .control import Record

_TICK = 1.0  # seconds between looks at the guard, at strays and at idleness
_TICK_INHERITED = 0.1  # while there are shims of an earlier launcher: nobody tells us of their end
_TICK_ENDING = 0.01  # while a shim's process is being collected
BACKLOG = 128
_SEND_LIMIT = 16 * 1024 * 1024  # bytes that wait for a client that does not read; beyond it is cut off


class Connection:
    """One client. Complete requests are carried out even when it has gone meanwhile."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.subscribed = False
        self.incoming = b""
        self.outgoing = b""
        self.closed = False


class Server:
    def __init__(
        self, control_dir: str, listener: socket.socket, separate: Isolation, idle_exit: float
    ) -> None:
        self.separate = separate
        self._control_dir = control_dir
        self._listener = listener
        self._idle_exit = idle_exit
        self._selector = selectors.DefaultSelector()
        self._connections: set[Connection] = set()
        self._busy_at = time.monotonic()
        self._tick_at = 0.0
        self._quitting = False
        self._operations: dict[str, Callable[[Connection, Record], Record | None]] = {
            "hello": self._hello,
            "subscribe": self._subscribe,
            "start": self._start,
            "stop": self._stop,
            "state": self._state,
            "list": self._list,
            "renew": self._renew,
            "quit": self._quit,
        }
        self.runs = Runs(control_dir, separate, self._selector, self._publish)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Until `quit`, SIGTERM, or nothing to do for the idle time. Runs go on under their shims."""
        self._watch_for_termination()
        while not self._quitting:
            try:
                self._round()
            except Exception:  # noqa: BLE001 (a guard that dies of one request guards nobody)
                log("an error of the launcher's own; it goes on:")
                sys.excepthook(*sys.exc_info())  # to launcher.log
                time.sleep(_TICK_ENDING)
        for connection in list(self._connections):
            self._send_waiting(connection)  # the answer to quit
        self.runs.tidy(last=True)

    def _round(self) -> None:
        for key, mask in self._selector.select(self._patience()):
            if isinstance(key.data, Connection):
                self._exchange(key.data, mask)
            elif callable(key.data):
                key.data()
            else:
                self.runs.hear(key.data)
        self.runs.fork_queued()
        self._tick()

    # --- time ---------------------------------------------------------------------------------------

    def _patience(self) -> float:
        if self.runs.ending:
            return _TICK_ENDING
        return _TICK_INHERITED if self.runs.has_inherited else _TICK

    def _tick(self) -> None:
        if self.runs.ending:
            self.runs.collect()
        if self.runs.has_inherited:
            self.runs.poll_inherited()
        now = time.monotonic()
        if now < self._tick_at:
            return
        self._tick_at = now + _TICK
        self.runs.enforce()
        self.runs.kill_strays()
        self.runs.tidy()
        journal.bound(self._control_dir)
        if self.runs.live or self._connections:
            self._busy_at = now
        elif now - self._busy_at >= self._idle_exit:
            log(f"idle for {self._idle_exit:.0f} s: ending")
            self._quitting = True

    def _watch_for_termination(self) -> None:
        read, write = socket.socketpair()
        read.setblocking(False)
        write.setblocking(False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.set_wakeup_fd(write.fileno())
        self._wakeup = (read, write)
        self._selector.register(read, selectors.EVENT_READ, self._terminate)

    def _terminate(self) -> None:
        log("SIGTERM: ending; runs go on")
        self._quitting = True

    # --- connections --------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError as error:
            log(f"cannot accept a connection: {error}")
            time.sleep(0.01)
            return
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        if uid != os.geteuid():
            log(f"refused a connection of user {uid}: only user {os.geteuid()} may connect")
            channel.close()
            return
        channel.setblocking(False)
        connection = Connection(channel)
        self._connections.add(connection)
        self._selector.register(channel, selectors.EVENT_READ, connection)

    def _exchange(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not connection.closed:
            self._send_waiting(connection)
        if mask & selectors.EVENT_READ and not connection.closed:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.channel.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        *lines, connection.incoming = (connection.incoming + data).split(b"\n")
        for line in lines:
            self._carry_out(connection, line)
        if len(connection.incoming) > control.FRAME_LIMIT:
            refusal = replies.refusal("too_large", f"a request has {control.FRAME_LIMIT} bytes at most")
            self._reply(connection, None, refusal)
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if not connection.closed:
            connection.closed = True
            self._connections.discard(connection)
            self._selector.unregister(connection.channel)
            connection.channel.close()

    def _send(self, connection: Connection, line: bytes) -> None:
        if connection.closed:
            return
        connection.outgoing += line
        self._send_waiting(connection)

    def _send_waiting(self, connection: Connection) -> None:
        try:
            sent = connection.channel.send(connection.outgoing) if connection.outgoing else 0
            connection.outgoing = connection.outgoing[sent:]
        except BlockingIOError:
            pass
        except OSError:
            # Its requests may still wait to be read: leave the end to _receive.
            connection.outgoing = b""
        if len(connection.outgoing) > _SEND_LIMIT:
            log("cut off a client that does not read its events")
            self._drop(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
        if self._selector.get_key(connection.channel).events != wanted:
            self._selector.modify(connection.channel, wanted, connection)

    def _reply(self, connection: Connection, request_id: object, reply: bytes) -> None:
        self._send(connection, replies.frame(request_id, reply))

    def _publish(self, event: bytes) -> None:
        for connection in list(self._connections):
            if connection.subscribed:
                self._send(connection, event)

    # --- requests -----------------------------------------------------------------------------------

    def _carry_out(self, connection: Connection, line: bytes) -> None:
        request_id = None
        try:
            request = json.loads(line)
            request_id = request["id"]
            operation = self._operations[request["op"]]
        except (ValueError, TypeError, KeyError) as error:
            refusal = replies.refusal("bad_request", f"no request that is known here: {error!r}")
            self._reply(connection, request_id, refusal)
            return
        try:
            record = operation(connection, request)
            reply = None if record is None else replies.inside({"ok": True, **record})
        except RefusedError as error:
            reply = replies.refusal(error.code, str(error))
        except control.BadNameError as error:
            reply = replies.refusal("bad_name", str(error))
        except (TypeError, ValueError, KeyError) as error:
            reply = replies.refusal("bad_request", f"{request['op']}: {error!r}")
        except OSError as error:
            log(f"{request['op']}: {error}")
            reply = replies.refusal("system", str(error))
        if reply is not None:
            self._reply(connection, request_id, reply)

    def _hello(self, _connection: Connection, _request: Record) -> Record:
        return {
            "version": control.PROTOCOL,
            "pid": os.getpid(),
            "boot_id": self.separate.boot_id,
            "isolation": self.separate.mode,
            "isolation_reason": self.separate.refusal or self.separate.reason,
            "bounds": self._bounds(),
            "can_start": self.separate.refusal is None,
            "live": sorted(self.runs.live),
            "renewed_age": self.runs.guard.age(),
        }

    def _bounds(self) -> Record:
        """How commands are bounded here: by a control group of which version, else 0; and why not."""
        groups = self.separate.groups
        if groups is None:
            return {"memory": 0, "cpu": 0, "reason": "processes of the worker's own"}
        return {name: groups.has(name) for name in (cgroup.MEMORY, cgroup.CPU)} | {"reason": groups.reason}

    def _subscribe(self, connection: Connection, _request: Record) -> Record:
        connection.subscribed = True
        return {}

    def _start(self, connection: Connection, request: Record) -> None:
        self.runs.start(request, lambda reply: self._reply(connection, request["id"], reply))

    def _stop(self, _connection: Connection, request: Record) -> Record:
        return self.runs.stop(request["name"], str(request.get("why", "")), float(request.get("grace", 0)))

    def _state(self, _connection: Connection, request: Record) -> Record:
        return control.state_of(control.run_dir(self._control_dir, request["name"]))

    def _list(self, _connection: Connection, _request: Record) -> Record:
        return {"runs": self.runs.states()}

    def _renew(self, _connection: Connection, request: Record) -> Record:
        kill_after = float(request["kill_after"])
        if not 0 < kill_after < float("inf"):
            raise RefusedError("bad_request", f"kill_after must be more than 0 seconds, not {kill_after}")
        self.runs.guard.renew(kill_after, request.get("lost_after"), request.get("as_of"))
        return {}

    def _quit(self, _connection: Connection, _request: Record) -> Record:
        log("asked to quit: ending; runs go on")
        self._quitting = True
        return {}
