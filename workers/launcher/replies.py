"""The texts that go over the launcher's socket. Standard library only.

A reply is kept as the inside of a JSON object, in bytes: the server puts the id of the request in front. What
a shim reported is JSON already and is passed on unread.
"""

from __future__ import annotations

import json

from . import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .control import Record


def inside(record: Record) -> bytes:
    """The inside of a JSON object that is not empty."""
    return control.dump(record)[1:-1]


def frame(request_id: object, reply: bytes) -> bytes:
    return b'{"id": %s, %s}\n' % (json.dumps(request_id).encode(), reply)


def refusal(code: str, message: str) -> bytes:
    return inside({"ok": False, "code": code, "message": message})


def start_failed(message: str) -> bytes:
    """The command was not executed; the same start may be asked for again."""
    return refusal("start_failed", message)


def state(record: Record) -> bytes:
    """The true state of a run as the answer to its start; see with_history."""
    return inside({"ok": True, **record})


def with_history(reply: bytes, existed: bool) -> bytes:
    """Add to the answer to a start whether the run existed when it was asked for."""
    return reply + (b', "existed": true' if existed else b', "existed": false')


def started(record: bytes) -> bytes:
    return b'"ok": true, "state": "running", "exit": null, "started": ' + record


def event(name: str, run_state: str, record: bytes) -> bytes:
    """Pushed to subscribers when a run ends; the record is `null` for a lost one."""
    return b'{"event": "exit", "name": "%s", "state": "%s", "exit": %s}\n' % (
        name.encode(), run_state.encode(), record,
    )  # fmt: skip
