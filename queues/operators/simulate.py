"""What would be if: submissions, moves, withdrawals, quotas and hosts are tried, and nothing of it stays.

What clients can do is really done, by the services, in a transaction that is rolled back; what operators can
do is changed in the snapshot. Then the one decision is asked: a simulation cannot differ from what happens.
Must not import views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from queues import needs
from queues.admission import snapshot
from queues.admission.asked import ask
from queues.admission.decide import Aggregate, Head, Host, Snapshot, decide
from queues.entries import moving, services, wire
from queues.entries.wire import EntryRequest, MoveRequest
from queues.estimates import service as estimates
from workers.vocabulary.errors import EngineError, InvalidInput

#: Most changes of a kind in one simulation, and most entries that are told of.
MOST: Final = 100
#: Own waiting entries whose place is known, and entries for which an estimate is made.
PLACES: Final = 1000
ESTIMATES: Final = 3

_WAITING: Final = """
    SELECT e.id, e.request_id, e.waiting_class_id, e.priority, e.tie
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id
    WHERE q.tenant_id = %s AND q.type = %s AND e.status = 'queued' ORDER BY e.priority, e.tie LIMIT %s
"""


_NOT_ASKED: Final = {"unknown": f"because estimates are made for the first {ESTIMATES} entries only"}


class Waiting(NamedTuple):
    """One of the tenant's entries that would wait."""

    id: int
    request_id: str
    waiting_class: int
    priority: int
    tie: str


@dataclass(frozen=True)
class Wish:
    """What is to be tried. ``quotas``: owner -> {resource: thousandths or None}; ``hosts``: one more each."""

    submit: Sequence[EntryRequest] = ()
    move: Sequence[tuple[str, MoveRequest]] = ()
    withdraw: Sequence[str] = ()
    quotas: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    hosts: Sequence[tuple[str, Mapping[str, int]]] = ()


def parse(kind: str, body: Mapping[str, Any]) -> Wish:
    """The body of a simulation. InvalidInput names the part that is wrong, as in ``submit[2].owner_id``."""
    return Wish(
        submit=[_submission(kind, number, item) for number, item in _objects(body, "submit")],
        move=[_move(number, item) for number, item in _objects(body, "move")],
        withdraw=[_name(number, item) for number, item in _items(body, "withdraw")],
        quotas=_quotas(body.get("quotas")),
        hosts=[_host(number, item) for number, item in _objects(body, "hosts")],
    )


def simulate(tenant_id: int, kind: str, wish: Wish) -> dict[str, Any]:
    """{runs_now, entries: [{request_id, position, estimate}], approximate}; changes nothing.

    Raises what the changes would raise, naming the part. Entries: those that were named, then the first ones.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        try:
            _apply(tenant_id, kind, wish)
            seen = _with_limits(cursor, tenant_id, kind, snapshot.read(cursor, kind, aside=True), wish)
            decision = decide(seen, most=10_000)
            cursor.execute(_WAITING, [tenant_id, kind, PLACES])
            waiting = [Waiting(*row) for row in cursor.fetchall()]
            gone = {each.entry for each in decision.admitted}
            queued = {each.request_id: each for each in waiting if each.id not in gone}
            named = [each.request_id for each in wish.submit] + [name for name, _ in wish.move]
            told = list(dict.fromkeys([*(name for name in named if name in queued), *queued]))[:MOST]
            guessed = _estimates(cursor, kind, seen, [queued[name] for name in told[:ESTIMATES]])
        finally:
            transaction.set_rollback(True)
    own = {each.id: each.request_id for each in waiting}
    places = {request_id: number for number, request_id in enumerate(queued, 1)}
    return {
        "runs_now": [own[each.entry] for each in decision.admitted if each.entry in own],
        "entries": [
            {"request_id": name, "position": places[name], "estimate": guessed.get(name, _NOT_ASKED)}
            for name in told
        ],
        "approximate": seen.approximate or decision.more or len(waiting) == PLACES,
    }


def _estimates(
    cursor: CursorWrapper, kind: str, seen: Snapshot, entries: Sequence[Waiting]
) -> dict[str, dict[str, Any]]:
    """How long these would wait; of those that the snapshot knows."""
    facts = estimates.Facts(cursor, kind, seen)
    known = {each.id for each in seen.classes}
    return {
        each.request_id: facts.estimate(
            ask(seen, each.waiting_class, Head(each.id, each.priority, each.tie)), 0.0
        ).shown()
        for each in entries
        if each.waiting_class in known
    }


def _apply(tenant_id: int, kind: str, wish: Wish) -> None:
    for number, name in enumerate(wish.withdraw):
        with _part(f"withdraw[{number}]"):
            services.end(tenant_id, kind, name)
    for number, wanted in enumerate(wish.submit):
        with _part(f"submit[{number}]"):
            services.create(tenant_id, kind, wanted)
    for number, (name, to) in enumerate(wish.move):
        with _part(f"move[{number}]"):
            moving.move(tenant_id, kind, name, to)


def _with_limits(cursor: CursorWrapper, tenant_id: int, kind: str, seen: Snapshot, wish: Wish) -> Snapshot:
    """The snapshot with other quotas and more hosts."""
    cursor.execute("SELECT id FROM queues_queue WHERE tenant_id = %s AND type = %s", [tenant_id, kind])
    row = cursor.fetchone()
    quotas = dict(seen.quotas)
    for owner, changed in wish.quotas.items():
        if row is not None:
            merged = {**quotas.get((row[0], owner), {}), **changed}
            quotas[row[0], owner] = {name: amount for name, amount in merged.items() if amount is not None}
    aggregates = {each.name: each for each in seen.aggregates}
    for number, (name, amounts) in enumerate(wish.hosts):
        grown = aggregates.get(name, Aggregate(name, ()))
        host = Host(-1 - number, f"simulated-{number}", dict(amounts), dict(amounts), dict(amounts))
        aggregates[name] = replace(grown, hosts=(*grown.hosts, host))
    return replace(seen, quotas=quotas, aggregates=tuple(aggregates.values()))


# --- the request -------------------------------------------------------------------------------------------


def _submission(kind: str, number: int, item: Mapping[str, Any]) -> EntryRequest:
    """An id and a callback may be left out."""
    name = f"simulated-{number}"
    given = {key: value for key, value in item.items() if value is not None}
    with _part(f"submit[{number}]"):
        return wire.parse_entry(kind, {"request_id": name, "callback": f"urn:gantry:{name}", **given})


def _move(number: int, item: Mapping[str, Any]) -> tuple[str, MoveRequest]:
    return _name(number, item.get("request_id"), "move", ".request_id"), _moved(number, item)


def _moved(number: int, item: Mapping[str, Any]) -> MoveRequest:
    with _part(f"move[{number}]"):
        return wire.parse_move(item)


def _name(number: int, item: object, part: str = "withdraw", key: str = "") -> str:
    field_name = f"{part}[{number}]{key}"
    if not isinstance(item, str):
        raise InvalidInput(f"{field_name} must be a request_id, as text", field=field_name)
    return wire.check_name(item, field_name)


def _quotas(given: object) -> dict[str, dict[str, int | None]]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        raise InvalidInput("quotas must be an object {owner_id: {resource: amount}}", field="quotas")
    return {
        owner: {
            name: None if amount is None else needs.amount(amount, f"quotas.{owner}.{name}", up=False)
            for name, amount in amounts.items()
        }
        for owner, amounts in given.items()
    }


def _host(number: int, item: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    aggregate = item.get("aggregate")
    if not isinstance(aggregate, str) or not aggregate.strip():
        name = f"hosts[{number}].aggregate"
        raise InvalidInput(f"{name} is missing: name the aggregate that has one more host", field=name)
    amounts = {name: value for name, value in item.items() if name not in ("aggregate", "name")}
    return aggregate, {
        name: needs.amount(value, f"hosts[{number}].{name}", up=False) for name, value in amounts.items()
    }


def _items(body: Mapping[str, Any], part: str) -> list[tuple[int, Any]]:
    given = body.get(part)
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > MOST:
        raise InvalidInput(f"{part} must be a list of at most {MOST}", field=part)
    return list(enumerate(given))


def _objects(body: Mapping[str, Any], part: str) -> list[tuple[int, dict[str, Any]]]:
    found = _items(body, part)
    for number, item in found:
        if not isinstance(item, dict):
            raise InvalidInput(f"{part}[{number}] must be an object", field=f"{part}[{number}]")
    return found


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Errors name the part of the simulation in which they are."""
    try:
        yield
    except EngineError as error:
        named = error.field is not None and error.message.startswith(error.field)
        error.message = f"{name}.{error.message}" if named else f"{name}: {error.message}"
        error.field = f"{name}.{error.field}" if error.field else name
        error.args = (error.message,)
        raise
