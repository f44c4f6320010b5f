"""What is stored about entries, as the facts that ``wire`` renders: one, or a queue in its order.

Plain SQL. Everything takes the tenant. A whole list is the ids of one moment, read in batches: nobody is left
out or told twice because entries are moved or admitted meanwhile. Must not import views.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from queues.entries.errors import NoSuchEntry
from queues.entries.wire import QUEUED, RUNNING, EntryFacts
from workers.vocabulary.errors import InvalidInput

#: A running or ended entry's first callback, with what went wrong last; nothing is looked up for the others.
_CALLBACK: Final = """
    LEFT JOIN LATERAL (
        SELECT c.state, CASE WHEN c.state IN ('due', 'dead') THEN
            (SELECT coalesce(nullif(a.error, ''), 'the receiver answered ' || a.status)
             FROM workers_callbackattempt a WHERE a.callback_id = c.id ORDER BY a.id DESC LIMIT 1)
            END AS error
        FROM workers_callback c
        WHERE e.status <> 'queued' AND e.deliverable AND c.owner_kind = 'entry' AND c.owner_id = e.id::text
        ORDER BY c.sequence LIMIT 1) c ON true
"""
#: In the order of ``EntryFacts``, without the callback's.
COLUMNS: Final = """e.id, {type}, e.created_at, e.updated_at, e.ended_at, e.request_id, e.owner_id, e.data,
    e.callback, e.priority, e.status, e.deliverable, e.told_at, e.admitted_at, e.tie,
    e.message"""
_ONE: Final = f"""
    SELECT {COLUMNS.format(type="q.type")}, c.state, c.error
    FROM queues_queue q JOIN queues_entry e ON e.queue_id = q.id {_CALLBACK}
    WHERE q.type = %s AND q.tenant_id = %s AND e.request_id = %s
"""
_MANY: Final = f"""
    SELECT {COLUMNS.format(type="q.type")}, c.state, c.error
    FROM queues_entry e JOIN queues_queue q ON q.id = e.queue_id {_CALLBACK}
    WHERE e.id = ANY(%s) AND e.status = ANY(%s)
"""
_QUEUE: Final = "(SELECT id FROM queues_queue WHERE type = %(type)s AND tenant_id = %(tenant)s)"
#: Phases of a list: letter of its cursors -> which entries, by what they are ordered. Each has its index.
_PHASES: Final = {
    "r": ("status = 'running'", "admitted_at, id"),
    "q": ("status = 'queued'", "priority, tie"),
    "e": ("status = %(status)s AND ended_at IS NOT NULL", "ended_at, id"),
}
_CURSOR: Final = re.compile(r"([re])([0-9]{1,18})\.([0-9]{1,18})|(q)(-?[0-9]{1,16})\.([0-9A-Za-z]{0,2000})")
#: How many entries are read and rendered at once.
BATCH: Final = 500


def entry(tenant_id: int, kind: str, request_id: str) -> EntryFacts:
    """One entry, also one that has ended. NoSuchEntry."""
    with connection.cursor() as cursor:
        cursor.execute(_ONE, [kind, tenant_id, request_id])
        row = cursor.fetchone()
    if row is None:
        raise NoSuchEntry(request_id)
    return EntryFacts._make(row)


@dataclass(frozen=True)
class Listing:
    """A list call: the queue, and the filters of ``owner_id`` ("" = any) and ``status``."""

    tenant_id: int
    type: str
    owner_id: str
    statuses: tuple[str, ...]

    def ids(self, most: int, cursor: str = "") -> list[tuple[str, int]]:
        """At most ``most`` (phase, id) in order, all of one moment; those behind the cursor's entry."""
        after = _parsed(cursor)
        phases = self._phases()
        if after is not None:
            if after[0] not in phases:
                raise InvalidInput("cursor is not one that a Link of this list gave", field="cursor")
            phases = phases[phases.index(after[0]) :]
        params: dict[str, Any] = {
            "type": self.type,
            "tenant": self.tenant_id,
            "owner": self.owner_id,
            "status": self.statuses[0],
            "most": most,
        }
        arrays = []
        for phase in phases:
            where, order = _PHASES[phase]
            if self.owner_id:
                where += " AND owner_id = %(owner)s"
            if after is not None and phase == after[0]:
                where += f" AND {_behind(phase)}"
                params |= {"first": after[1], "second": after[2]}
            arrays.append(
                f"ARRAY(SELECT id FROM queues_entry WHERE queue_id = {_QUEUE} AND {where} "
                f"ORDER BY {order} LIMIT %(most)s)"
            )
        with connection.cursor() as database:
            database.execute(f"SELECT {', '.join(arrays)}", params)
            row = database.fetchone() or ()
        return [(phase, pk) for phase, ids in zip(phases, row, strict=True) for pk in ids][:most]

    def entries(self, found: Sequence[tuple[str, int]]) -> Iterator[EntryFacts]:
        """These entries in this order, but what is pruned, or has ended and is not asked for any more."""
        for start in range(0, len(found), BATCH):
            ids = [pk for _, pk in found[start : start + BATCH]]
            with connection.cursor() as cursor:
                cursor.execute(_MANY, [ids, list(self.statuses)])
                rows = {row[0]: EntryFacts._make(row) for row in cursor.fetchall()}
            yield from (rows[pk] for pk in ids if pk in rows)

    def cursor_of(self, found: Sequence[tuple[str, int]]) -> str:
        """What leads on behind the last of these that still stands where it was found."""
        for phase, pk in reversed(found[-BATCH:]):
            for one in self.entries([(phase, pk)]):
                if phase == "q" and one.status == QUEUED:
                    return f"q{one.priority}.{one.tie}"
                at = one.admitted_at if phase == "r" else one.ended_at
                if at is not None and phase == ("r" if one.status == RUNNING else "e"):
                    return f"{phase}{int(at.timestamp()) * 1_000_000 + at.microsecond}.{pk}"
        return ""

    def _phases(self) -> tuple[str, ...]:
        phases = {RUNNING: "r", QUEUED: "q"}
        return tuple(phases.get(status, "e") for status in self.statuses)


def _behind(phase: str) -> str:
    if phase == "q":
        return "(priority, tie) > (%(first)s::bigint, %(second)s)"
    at = "admitted_at" if phase == "r" else "ended_at"
    moment = "timestamptz 'epoch' + %(first)s * interval '1 microsecond'"
    return f"({at}, id) > ({moment}, %(second)s::bigint)"


def _parsed(cursor: str) -> tuple[str, int, str] | None:
    if not cursor:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidInput("cursor is not one that a Link of this list gave", field="cursor")
    if found[4]:
        return found[4], int(found[5]), found[6]
    return found[1], int(found[2]), found[3]
