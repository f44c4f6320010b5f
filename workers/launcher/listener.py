"""The listener of a node's execs: `python -I -S -X utf8 __main__.py execs FOLDER`.

Starts what workers ask for, attached to the engine, and keeps what it writes; it outlives them. A worker
connects to FOLDER/listener.sock and sends one order, a line of JSON:

  do      "start", or "follow": somebody started it, and nobody listens any more
  folder  the attempt's control folder; exec: its id at the engine; engine: see engine.py
  words   for the standard input of the wrapper (None: there is no wrapper); word: its first one, a secret
  head, tail   how much of the output is kept, in bytes
  since   follow: seconds since 1970 from which on the engine is asked for the end

It gets a line once something is known, and one at the end: {"pid", "born", "at"} the command runs; {"end":
{...}} what `exit` says; {"refused": [status, words]} by the engine; {"failed": words} nothing was sent;
{"away": words} nobody knows whether it was started.

The control folder: `lock` is held while somebody listens, `started` is {pid, born, at}, `stdout` the output,
`exit` one of {"code"}, {"never": why nothing of it ran, "" = there is no such program}, {"lost": why nobody
knows how it ended}, with ran_s, note, what `started` says, and "untold" where output is missing (gaps.py).
FOLDER holds `lock` (held while it lives) and `listener.log`. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time

from . import background, control
from .ends import Ends
from .kept import Kept, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

PROTOCOL = 1
SOCKET = "listener.sock"
_IDLE = 60.0  # seconds without an exec and without a worker after which it ends
_PER_EXEC = 8  # descriptors that one exec may need at once, with those who wait for it
_RESERVE = 32  # descriptors for everything else


class Listener:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ends = Ends()
        #: How many execs it may listen to at once: at its end each needs descriptors that must be there.
        self._most = max(1, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _RESERVE) // _PER_EXEC)
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        self._connections = 0
        self._idle_since = control.boottime()

    def listen(self) -> None:
        """From here on workers can connect."""
        path = os.path.join(self.folder, SOCKET)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        address, held = control.socket_address(self.folder, SOCKET)
        self._server.bind(address)
        if held is not None:
            os.close(held)
        os.chmod(path, 0o600)
        self._server.listen(64)
        self._server.settimeout(1.0)

    def serve(self) -> None:
        """Take orders until there is nothing to do."""
        while True:
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                if self._is_idle():
                    os.unlink(os.path.join(self.folder, SOCKET))
                    return
                continue
            except OSError as error:  # no descriptor left: whoever asks is answered when there is one
                tell(f"a worker is not heard: {error}")
                time.sleep(0.1)
                continue
            self._changed(1)
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _is_idle(self) -> bool:
        with self._lock:
            if self._kept or self._connections:
                self._idle_since = control.boottime()
            return control.boottime() - self._idle_since > _IDLE

    def _changed(self, by: int) -> None:
        with self._lock:
            self._connections += by

    def _serve_one(self, connection: socket.socket) -> None:
        connection.settimeout(10.0)
        try:
            with connection.makefile("rb") as lines:
                order = json.loads(lines.readline(control.FRAME_LIMIT))
            self._obey(order, connection)
        except Exception as error:  # noqa: BLE001  # whatever it is, the worker asks the engine
            tell(f"an order was not carried out: {error!r}")
        finally:
            connection.close()
            self._changed(-1)

    def _obey(self, order: Record, connection: socket.socket) -> None:
        if order.get("protocol") != PROTOCOL:
            _say(connection, {"failed": "the listener of this node is another version's: it ends when idle"})
            return
        folder = order["folder"]
        with self._lock:
            kept = self._kept.get(folder)
            if kept is None and len(self._kept) >= self._most:
                full = (
                    f"the listener of this node may have {self._most} execs at once (open files: ulimit -Hn)"
                )
                _say(connection, {"failed": full})
                return
            if kept is None:
                kept = self._kept[folder] = Kept(order, self._ends)
                mine = True
            else:
                mine = False
        if mine:
            # The command's story goes on when the worker that asked for it is gone.
            threading.Thread(target=self._keep, args=(folder, kept), daemon=True).start()
        for event in (kept.known, kept.over):
            event.wait()
            _say(connection, kept.answer)

    def _keep(self, folder: str, kept: Kept) -> None:
        try:
            kept.live()
        except Exception as error:  # noqa: BLE001  # one exec's fault is no other's
            tell(f"{folder}: {error!r}")
            kept.conclude({"away": repr(error)})
        finally:
            with self._lock:
                self._kept.pop(folder, None)


def _say(connection: socket.socket, answer: Record) -> None:
    with contextlib.suppress(OSError):  # it is gone
        connection.sendall(control.dump(answer) + b"\n")


def main(arguments: list[str]) -> None:
    """Return when a listener listens, which goes on by itself; exit code 75: another one has this folder."""
    listener = Listener(arguments[0])
    background.begin(arguments[0], "listener.log", listener.listen)
    threading.stack_size(256 * 1024)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener.serve()
