"""The SQL of delivering: which receivers wait, whose turn it is, what an attempt changed.

A receiver (tenant, scheme://host:port) is leased as a whole, so that one connection serves it at a time
whatever the number of deliverers. Every write names the lease's epoch: zero rows means that the lease was
taken away, and nothing is changed. Times are the database's. Must not import HTTP.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from django.conf import settings
from django.db import connection, transaction

from workers.callbacks.schedule import Decision, Sent
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import Lease

#: Receivers that accepted the last time, those of which nothing is known, those that timed out.
Lane = Literal["known", "new", "slow"]
LANES: Final[tuple[Lane, ...]] = ("known", "new", "slow")
#: Nothing sorts before this.
START: Final = (0, "")

#: Receivers with something due, from a place on, by jumping through the partial index: its cost is the
#: number of receivers, not of callbacks. LIMIT ends the walk.
_WAITING: Final = """
    WITH RECURSIVE heads AS (
        -- the first receiver with something due behind the given place
        (SELECT tenant_id, receiver FROM workers_callback
         WHERE state = 'due' AND next_at IS NOT NULL AND (tenant_id, receiver) > (%(tenant)s, %(receiver)s)
         ORDER BY tenant_id, receiver LIMIT 1)
      UNION ALL
        -- and the next one behind it: one jump through the index each
        SELECT n.tenant_id, n.receiver FROM heads h CROSS JOIN LATERAL (
            SELECT c.tenant_id, c.receiver FROM workers_callback c
            WHERE c.state = 'due' AND c.next_at IS NOT NULL
                AND (c.tenant_id, c.receiver) > (h.tenant_id, h.receiver)
            ORDER BY c.tenant_id, c.receiver LIMIT 1) n
    )
    SELECT h.tenant_id, h.receiver, v.id FROM heads h
    LEFT JOIN workers_callbackreceiver v ON v.tenant_id = h.tenant_id AND v.address = h.receiver
    WHERE CASE WHEN v.slow THEN 'slow' WHEN v.proven THEN 'known' ELSE 'new' END = %(lane)s
        AND (v.lease_until IS NULL OR v.lease_until < now())
        AND (v.rests_until IS NULL OR v.rests_until <= now())
        AND EXISTS (SELECT 1 FROM workers_callback c WHERE c.tenant_id = h.tenant_id
            AND c.receiver = h.receiver AND c.state = 'due' AND c.next_at <= now())
    LIMIT %(limit)s
"""


@dataclass(frozen=True)
class Receiver:
    """A leased receiver. ``lease.run_id`` is the receiver's id."""

    lease: Lease
    tenant_id: int
    address: str
    lane: Lane


@dataclass(frozen=True)
class Due:
    """A callback whose turn it is."""

    id: int
    message_id: str
    url: str
    body: str
    attempts_made: int
    age_s: float
    #: Its URL has answered 410 before.
    disabled: bool
    #: Of the receiver.
    slow: bool
    failures: int
    #: Another one is due at the same receiver.
    more: bool = False


def lease_s() -> float:
    """How long a receiver is leased, in seconds. Longer than a delivery whatever is set: else a receiver that
    hangs would be taken over each time before that can be recorded, and never count as slow."""
    return max(float(settings.GANTRY_CALLBACK_LEASE_S), 1.5 * float(settings.GANTRY_CALLBACK_TIMEOUT_S))


def claim(holder: str, *, lane: Lane, limit: int, after: tuple[int, str]) -> list[Receiver]:
    """Lease up to ``limit`` receivers of a lane that have something due, going round from ``after`` on."""
    with transaction.atomic(), connection.cursor() as cursor:
        found: dict[tuple[int, str], int | None] = {}
        for start in (after, START) if after != START else (START,):
            cursor.execute(
                _WAITING,
                {"tenant": start[0], "receiver": start[1], "lane": lane, "limit": limit - len(found)},
            )
            found |= {(tenant, address): known for tenant, address, known in cursor.fetchall()}
            if len(found) >= limit:
                break
        if not found:
            return []
        if fresh := sorted(key for key, known in found.items() if known is None):
            cursor.execute(
                """INSERT INTO workers_callbackreceiver (tenant_id, address)
                   SELECT * FROM unnest(%s::bigint[], %s::text[]) ON CONFLICT DO NOTHING""",
                [[tenant for tenant, _ in fresh], [address for _, address in fresh]],
            )
        cursor.execute(
            """WITH free AS ( -- those without a lease, or whose lease has run out
                   SELECT v.id FROM workers_callbackreceiver v
                   JOIN unnest(%s::bigint[], %s::text[]) AS w(tenant_id, address)
                       ON v.tenant_id = w.tenant_id AND v.address = w.address
                   WHERE v.lease_until IS NULL OR v.lease_until < now()
                   FOR UPDATE OF v SKIP LOCKED)
               UPDATE workers_callbackreceiver v SET lease_epoch = v.lease_epoch + 1, holder = %s,
                   lease_until = now() + %s * interval '1 second', used_at = now()
               FROM free WHERE v.id = free.id
               RETURNING v.id, v.lease_epoch, v.tenant_id, v.address""",
            [
                [tenant for tenant, _ in found],
                [address for _, address in found],
                holder[:128],
                lease_s(),
            ],
        )
        order = {key: number for number, key in enumerate(found)}
        rows = sorted(cursor.fetchall(), key=lambda row: order[row[2], row[3]])
    return [Receiver(Lease(row[0], 0, row[1]), row[2], row[3], lane) for row in rows]


def next_due(receiver: Receiver) -> Due | None:
    """The callback to send now; None when none is due or the lease was taken away."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT c.id, c.message_id, c.url, c.body, c.attempts_made,
                   extract(epoch FROM now() - c.due_since)::float8,
                   EXISTS (SELECT 1 FROM workers_disabledurl d WHERE d.tenant_id = c.tenant_id
                       AND d.digest = encode(sha256(convert_to(c.url, 'UTF8')), 'hex')),
                   v.slow, v.failures
               FROM workers_callback c JOIN workers_callbackreceiver v
                   ON v.id = %s AND v.lease_epoch = %s AND v.lease_until > now()
               WHERE c.tenant_id = %s AND c.receiver = %s AND c.state = 'due' AND c.next_at <= now()
               ORDER BY c.next_at, c.id LIMIT 2""",
            [receiver.lease.run_id, receiver.lease.epoch, receiver.tenant_id, receiver.address],
        )
        rows = cursor.fetchall()
    return replace(Due(*rows[0]), more=len(rows) > 1) if rows else None


def record(receiver: Receiver, due: Due, sent: Sent | None, decision: Decision, *, release: bool) -> bool:
    """Write an attempt (None: there was none) and what follows from it. False when it was not ours to write.

    ``release``: give the receiver back in the same commit.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RECORD, _record_values(receiver, due, sent, decision, release))
        row = cursor.fetchone()
        if row is None:
            return False
        if decision.state == "disabled" and sent is not None:
            cursor.execute(
                """INSERT INTO workers_disabledurl (tenant_id, url, digest) VALUES (%s, %s, %s)
                   ON CONFLICT DO NOTHING""",
                [receiver.tenant_id, due.url, digest(due.url)],
            )
        if decision.state != "due" or decision.yields:
            # A statement of its own: it sees a successor whose transaction we have just waited for.
            cursor.execute(_SUCCESSOR, [row[0], row[1], row[2]])
        step("callbacks.before_record_commit")
    step("callbacks.after_record_commit")
    return True


_RECORD: Final = """
    -- the receiver, only if it is still held under this lease: the fence
    WITH mine AS (UPDATE workers_callbackreceiver SET slow = %(slow)s, failures = %(failures)s,
            proven = CASE WHEN %(state)s = 'delivered' THEN true ELSE proven AND %(failures)s = 0 END,
            rests_until = now() + %(rests)s::float8 * interval '1 second',
            lease_until = CASE WHEN %(release)s THEN NULL ELSE now() + %(lease)s * interval '1 second' END
        WHERE id = %(receiver)s AND lease_epoch = %(epoch)s AND lease_until IS NOT NULL RETURNING id),
    -- the callback, only if it is due still and nobody has tried it meanwhile
    done AS (UPDATE workers_callback c SET state = %(state)s, yields = %(yields)s,
            attempts_made = c.attempts_made + %(tried)s,
            next_at = now() + %(next)s::float8 * interval '1 second',
            delivered_at = CASE WHEN %(state)s = 'delivered' THEN now() END
        FROM mine WHERE c.id = %(id)s AND c.state = 'due' AND c.attempts_made = %(before)s
        RETURNING c.id, c.owner_kind, c.owner_id, c.sequence),
    -- the attempt, if anything was sent
    tried AS (INSERT INTO workers_callbackattempt (callback_id, status, error, ms)
        SELECT id, %(status)s::int, %(error)s, %(ms)s FROM done WHERE %(tried)s > 0)
    SELECT owner_kind, owner_id, sequence FROM done
"""

#: The next one of the same object that has waited, unless another one before it is still undecided.
_SUCCESSOR: Final = """
    UPDATE workers_callback SET next_at = now() WHERE id = (
        SELECT s.id FROM workers_callback s
        WHERE s.owner_kind = %s AND s.owner_id = %s AND s.sequence > %s
            AND s.state = 'due' AND s.next_at IS NULL
            AND NOT EXISTS (SELECT 1 FROM workers_callback b WHERE b.owner_kind = s.owner_kind
                AND b.owner_id = s.owner_id AND b.sequence < s.sequence AND b.state = 'due' AND NOT b.yields)
        ORDER BY s.sequence LIMIT 1)
"""


def _record_values(
    receiver: Receiver, due: Due, sent: Sent | None, decision: Decision, release: bool
) -> dict[str, Any]:
    return {
        "slow": decision.slow,
        "failures": decision.failures,
        "rests": decision.rests_s,
        "release": release,
        "lease": lease_s(),
        "receiver": receiver.lease.run_id,
        "epoch": receiver.lease.epoch,
        "state": decision.state,
        "yields": decision.yields,
        "tried": 0 if sent is None else 1,
        "next": decision.next_in_s,
        "id": due.id,
        "before": due.attempts_made,
        "status": None if sent is None else sent.status,
        "error": "" if sent is None else sent.error.replace("\0", ""),
        "ms": 0 if sent is None else sent.ms,
    }


def release(lease: Lease) -> None:
    """Give a receiver back. Does nothing when the lease was taken away."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_callbackreceiver SET lease_until = NULL WHERE id = %s AND lease_epoch = %s",
            [lease.run_id, lease.epoch],
        )


def repair() -> int:
    """Let those go on that wait for nothing any more (an earlier one was pruned); returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE workers_callback SET next_at = now() WHERE id IN (
                   SELECT s.id FROM workers_callback s WHERE s.state = 'due' AND s.next_at IS NULL
                       AND NOT EXISTS (SELECT 1 FROM workers_callback b WHERE b.owner_kind = s.owner_kind
                           AND b.owner_id = s.owner_id AND b.sequence < s.sequence AND b.state = 'due'
                           AND NOT b.yields)
                   LIMIT 500 FOR UPDATE OF s SKIP LOCKED)
               AND state = 'due' AND next_at IS NULL"""
        )
        return int(cursor.rowcount)


def heartbeat(name: str, counts: dict[str, int], *, detached: bool = False) -> None:
    """Tell that a deliverer lives, and what it has done since the last time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO workers_deliverer AS d (name, delivered, failed, dead, version, detached)
               VALUES (%(name)s, %(delivered)s, %(failed)s, %(dead)s, %(version)s, %(detached)s)
               ON CONFLICT (name) DO UPDATE SET heartbeat_at = now(), detached = %(detached)s,
                   version = %(version)s, delivered = d.delivered + %(delivered)s,
                   failed = d.failed + %(failed)s, dead = d.dead + %(dead)s""",
            {
                "name": name[:128],
                "version": settings.VERSION,
                "detached": detached,
                **{key: counts.get(key, 0) for key in ("delivered", "failed", "dead")},
            },
        )


def digest(url: str) -> str:
    """By which a disabled URL is found."""
    return hashlib.sha256(url.encode()).hexdigest()
