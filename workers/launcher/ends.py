"""How execs ended, as the engine's events say it: `exec_die` has the true exit code also when a stream was
cut.

The engine repeats its last 256 events, so a gap of the connection loses none in the ordinary case. Standard
library only.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from urllib.parse import quote

from .engine import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record

_MOST = 10_000  # ends that are remembered
_SILENT = 60.0  # seconds without any event after which the connection is made anew
_BACK = 5  # seconds before the first order from which on events are asked for
_FILTERS = quote(json.dumps({"type": ["container"], "event": ["exec_die"]}))


class Ends:
    """{exec: exit code} of everything that ended on the engines listened to. For any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._codes: dict[str, int] = {}
        self._heard: set[str] = set()

    def listen(self, engine: Record, since: float | None = None) -> None:
        """From now on, once for each engine; `since` asks for earlier ends, too (seconds since 1970)."""
        key = json.dumps(engine, sort_keys=True)
        with self._changed:
            new = key not in self._heard
            self._heard.add(key)
        if new:
            start = time.time() - _BACK
            threading.Thread(target=self._listen_forever, args=(engine, start), daemon=True).start()
        if since is not None:
            try:
                self._read(engine, f"since={int(since)}&until={int(time.time()) + 1}")
            except (OSError, http.client.HTTPException, ValueError):
                return  # the engine's word about the exec is left

    def code(self, exec_id: str) -> int | None:
        with self._changed:
            return self._codes.get(exec_id)

    def wait(self, exec_id: str, patience: float) -> int | None:
        """Its code, as soon as it is known; None after `patience` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: exec_id in self._codes, patience)
            return self._codes.get(exec_id)

    def _listen_forever(self, engine: Record, since: float) -> None:
        while True:
            began = time.time()
            try:
                self._read(engine, f"since={int(since)}")
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.2 if time.time() - began > 1 else 1.0)
            since = min(began, time.time()) - _BACK

    def _read(self, engine: Record, span: str) -> None:
        connection = Connection(engine)
        try:
            connection.request("GET", f"{engine['api']}/events?{span}&filters={_FILTERS}")
            connection.sock.settimeout(_SILENT)
            response = connection.getresponse()
            while line := response.readline():
                found = json.loads(line).get("Actor", {}).get("Attributes", {})
                if "execID" in found and "exitCode" in found:
                    self._remember(found["execID"], int(found["exitCode"]))
        finally:
            connection.close()

    def _remember(self, exec_id: str, code: int) -> None:
        with self._changed:
            self._codes[exec_id] = code
            while len(self._codes) > _MOST:
                self._codes.pop(next(iter(self._codes)))
            self._changed.notify_all()
