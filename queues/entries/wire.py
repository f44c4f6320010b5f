"""What the queues family reads and says on the wire: entries, moves, answers, the body of a callback.

Pure: no database, no HTTP. Sources: contract page 50 and seed 003. The error envelope is in
``queues.entries.errors``, what ``data`` needs in ``queues.needs``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from queues import bodies, needs
from queues.needs import Need
from workers import addresses
from workers.vocabulary.errors import InvalidInput

OWNER_MOST: Final = 255
CALLBACK_MOST: Final = 8000
#: A Priority lies within this, both ways: what a JavaScript client holds without loss.
PRIORITY_MOST: Final = 2**53 - 1
#: What the seed writes for "queued" in one of its examples.
SYNONYMS: Final = {"queue": "queued"}
QUEUED: Final = "queued"
RUNNING: Final = "running"

_NAME: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """A request for resources that has passed every check. ``data`` is the JSON text that is shown."""

    request_id: str
    owner_id: str
    data: str
    callback: str
    deliverable: bool
    need: Need
    #: The aggregate that it is bound to; "" = any.
    aggregate: str


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """Where an entry shall go: one of the three is given."""

    priority: int | None = None
    before: str | None = None
    after: str | None = None


class EntryFacts(NamedTuple):
    """An entry as ``queues.entries.reading`` reads it; the last two are of its callback, None without one."""

    id: int
    type: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    request_id: str
    owner_id: str
    data: str
    callback: str
    priority: int
    status: str
    deliverable: bool
    told_at: datetime | None
    admitted_at: datetime | None
    tie: str
    #: Why it ended, where it was not its client's wish.
    message: str = ""
    callback_state: str | None = None
    callback_error: str | None = None


# --- Requests ----------------------------------------------------------------------------------------


def is_name(text: str) -> bool:
    """Whether a type or request_id can be called so: it is one segment of a path, as it is written."""
    return _NAME.fullmatch(text) is not None and text not in (".", "..")


def check_name(text: str, field: str) -> str:
    """``text``, or InvalidInput that names the field."""
    if not is_name(text):
        raise InvalidInput(
            f"{field} is {text[:40]!r}: use 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - (not . or ..)",
            field=field,
        )
    return text


def parse_entry(kind: str, body: Mapping[str, Any]) -> EntryRequest:
    """The body of a POST to a queue. InvalidInput names the field that is wrong."""
    request_id = check_name(
        _text(body, "request_id", 128, "give the request an id of your own"), "request_id"
    )
    owner_id = _text(body, "owner_id", OWNER_MOST, "say whose request it is")
    callback = _text(body, "callback", CALLBACK_MOST, "give the URL that is called on admission")
    data = body.get("data")
    if not isinstance(data, dict):
        raise InvalidInput("data is missing or no object: describe what the request needs", field="data")
    return EntryRequest(
        request_id=request_id,
        owner_id=owner_id,
        data=bodies.data_text(data),
        callback=callback,
        deliverable=_is_url(callback),
        need=needs.need_of(kind, data),
        aggregate=needs.bound_to(data),
    )


def parse_move(body: Mapping[str, Any]) -> MoveRequest:
    """The body of a POST to an entry: one of priority, before, after. Absent and null mean the same."""
    given = [name for name in ("priority", "before", "after") if body.get(name) is not None]
    if len(given) != 1:
        raise InvalidInput(
            f"{' and '.join(given) or 'none of priority, before and after'} given: say where the request "
            'shall go by exactly one of {"priority": n}, {"before": request_id}, {"after": request_id}',
            field=given[0] if given else "priority",
        )
    (name,) = given
    if name == "priority":
        return MoveRequest(priority=parse_priority(body["priority"]))
    neighbour = body[name]
    if not isinstance(neighbour, str):
        raise InvalidInput(f"{name} must be the request_id of a queued request, as text", field=name)
    check_name(neighbour, name)
    return MoveRequest(before=neighbour) if name == "before" else MoveRequest(after=neighbour)


def parse_priority(given: object) -> int:
    """A whole number within +-(2^53-1); a fraction is rounded down."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidInput("priority must be a number", field="priority")
    if isinstance(given, float) and not math.isfinite(given):
        raise InvalidInput("priority must be a finite number", field="priority")
    found = math.floor(given)
    if abs(found) > PRIORITY_MOST:
        raise InvalidInput(
            f"priority must lie between -{PRIORITY_MOST} and {PRIORITY_MOST} (2^53-1)", field="priority"
        )
    return found


def wanted_statuses(given: str | None) -> tuple[str, ...]:
    """The statuses that a list shows; ``given`` is ?status=. One that is unknown is shown by no entry."""
    return (SYNONYMS.get(given, given),) if given else (RUNNING, QUEUED)


def _text(body: Mapping[str, Any], name: str, most: int, fix: str) -> str:
    value = body.get(name)
    if value is None:
        raise InvalidInput(f"{name} is missing: {fix}", field=name)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text: {fix}", field=name)
    if not value.strip():
        raise InvalidInput(f"{name} is blank: {fix}", field=name)
    if len(value) > most:
        raise InvalidInput(f"{name} has {len(value)} characters: at most {most} are allowed", field=name)
    return value


def _is_url(callback: str) -> bool:
    """Without any look-up: what the guard of addresses says of it is seen at delivery."""
    try:
        addresses.parse(callback, credentials=True)
    except InvalidInput:
        return False
    return True


# --- Answers -----------------------------------------------------------------------------------------


def render_ok(data: object) -> dict[str, Any]:
    """The envelope of every answer that is not an error."""
    return {"data": data, "ok": True}


def render_entry(entry: EntryFacts) -> dict[str, Any]:
    """The seed's eleven keys, then ours."""
    state, error = callback_state(entry)
    return {
        "ID": entry.id,
        "CreatedAt": stamp(entry.created_at),
        "UpdatedAt": stamp(entry.updated_at),
        "DeletedAt": stamp(entry.ended_at),
        "RequestID": entry.request_id,
        "Type": entry.type,
        "OwnerID": entry.owner_id,
        "Data": entry.data,
        "Callback": entry.callback,
        "Priority": entry.priority,
        "Status": entry.status,
        "CallbackState": state,
        "CallbackError": error,
    }


def stamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the microsecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def with_stamps(value: object) -> object:
    """The same with every moment as it is shown."""
    if isinstance(value, datetime):
        return stamp(value)
    if isinstance(value, Mapping):
        return {key: with_stamps(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_stamps(inner) for inner in value]
    return value


def callback_state(entry: EntryFacts) -> tuple[str | None, str | None]:
    """CallbackState and CallbackError; no state where nothing was ever owed (it was withdrawn)."""
    if not entry.deliverable:
        error = "the callback is no http or https URL: ask for the status instead"
        return "undeliverable", f"{error}. {entry.message}" if entry.message else error
    if entry.callback_state == "disabled":
        return "dead", "the receiver answered 410 Gone: nothing more is sent to this URL"
    if entry.callback_state == "delivered":
        return "delivered", None
    if entry.callback_state is not None:
        return entry.callback_state, entry.callback_error or entry.message or None
    if entry.status in (QUEUED, RUNNING):
        return "due", None
    if entry.message:
        return "dead", entry.message
    return ("delivered" if entry.told_at is not None else None), None


def entry_path(kind: str, request_id: str) -> str:
    """Where an entry is shown."""
    return f"/v1/{kind}/{request_id}/"
