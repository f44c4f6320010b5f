"""The state machine: the only writer of a run's state. One function per edge of ``states.EDGES``.

Every write of a worker is fenced: it names the attempt and the lease epoch under which it works, and where
the row says otherwise nothing is changed and the run is missing from the result. Times are the database's.
Functions take many runs at once because workers write in groups; one run is a list of one. They run inside
the caller's transaction and take a cursor, so that one commit covers everything that belongs together.
Locks are taken in the order run ids ascending, then nodes; claiming locks its node first and then only
pending runs, with SKIP LOCKED, so the two never wait for each other in a circle.

Must not import services, claiming, agents or runtimes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.backends.utils import CursorWrapper

from workers.callbacks import outbox
from workers.runs.retries import LOSSES
from workers.vocabulary.leases import ClaimedRun, Lease, NewRun, Outcome
from workers.vocabulary.states import Reason, State

#: What a worker needs of a claimed run: fields of ClaimedRun after the lease, each with its expression.
_CLAIMED = {
    "tenant": "t.name",
    "tenant_id": "m.tenant_id",
    "family": "m.family",
    "kind": "m.kind",
    "name": "m.name",
    "spec": "m.spec::text",
    "cpu_m": "s.cpu_m",
    "mem_mb": "s.mem_mb",
    "retries_left": "m.retries_left",
    "losses_only": "m.losses_only",
    "timeout_s": "m.timeout_s",
    "grace_s": "m.grace_s",
    "never_lost": "coalesce(m.node_lost_after_s, -1) = 0",
    "cancel_requested": "m.cancel_requested_at IS NOT NULL",
    "operator_cancel": "m.cancelled_by_operator",
    "started_ago": "extract(epoch FROM now() - m.started_at)::float8",
    "crashes": "m.crashes",
}
#: And besides of one that it takes over.
_ADOPTED = {**_CLAIMED, "claimed_ago": "extract(epoch FROM now() - a.claimed_at)::float8"}
_LEASE = "m.id, m.attempt, m.lease_epoch, "
#: For a list in a statement; the reasons are words of our own.
_LOSSES = ", ".join(f"'{reason}'" for reason in sorted(LOSSES))
_CLAIMED_COLUMNS = _LEASE + ", ".join(_CLAIMED.values())
_ADOPTED_COLUMNS = _LEASE + ", ".join(_ADOPTED.values())


def _claimed(rows: Iterable[tuple[Any, ...]], *, adopted: bool) -> list[ClaimedRun]:
    found = []
    for run_id, attempt, epoch, *values in rows:
        facts = dict(zip(_ADOPTED if adopted else _CLAIMED, values, strict=True))
        facts["spec"] = json.loads(facts["spec"])
        found.append(ClaimedRun(lease=Lease(run_id, attempt, epoch), adopted=adopted, **facts))
    return found


def claim(cursor: CursorWrapper, node_id: int, node_name: str, run_ids: Sequence[int]) -> list[ClaimedRun]:
    """PENDING -> RUNNING on this node: attempt and epoch grow, resources are reserved.

    The caller holds the node's row lock and has checked that the runs fit. Runs that another node took
    meanwhile are left out. The schema refuses to reserve more than the node has, and a host port twice: who
    sees a port as free under the node's lock never waits for the transaction that gives it back.
    """
    cursor.execute(
        f"""
        WITH taken AS ( -- what is PENDING still; what another node is taking is skipped
            SELECT id FROM workers_run
            WHERE id = ANY(%(ids)s) AND state = 'PENDING' AND not_before IS NULL
                AND cancel_requested_at IS NULL
            FOR UPDATE SKIP LOCKED
        ), m AS ( -- attempt and lease epoch grow
            UPDATE workers_run r SET state = 'RUNNING', reason = '', message = '', exit_code = NULL,
                node_id = %(node)s, attempt = r.attempt + 1, lease_epoch = r.lease_epoch + 1,
                lease_until = now() + %(lease)s * interval '1 second', started_at = NULL, crashes = 0
            FROM taken WHERE r.id = taken.id RETURNING r.*
        ), tried AS ( -- opens the attempt
            INSERT INTO workers_attempt (run_id, number, node_id) SELECT id, attempt, node_id FROM m
        ), told AS ( -- leaves the event
            INSERT INTO workers_runevent (run_id, from_state, to_state, attempt, by)
            SELECT id, 'PENDING', 'RUNNING', attempt, %(name)s FROM m
        ), reserved AS ( -- resources of the node
            UPDATE workers_node n SET cpu_m_used = n.cpu_m_used + u.cpu, mem_mb_used = n.mem_mb_used + u.mem,
                slots_used = n.slots_used + u.runs
            FROM (SELECT sum(s.cpu_m) cpu, sum(s.mem_mb) mem, count(*) runs
                  FROM m JOIN workers_shape s ON s.id = m.shape_id) u
            WHERE n.id = %(node)s AND u.runs > 0
        ), ports AS ( -- and its host ports
            INSERT INTO workers_hostport (node_id, port, run_id)
            SELECT m.node_id, p.port, m.id FROM m JOIN workers_shape s ON s.id = m.shape_id
            CROSS JOIN LATERAL unnest(s.host_ports) AS p(port)
        )
        SELECT {_CLAIMED_COLUMNS} FROM m
        JOIN workers_tenant t ON t.id = m.tenant_id JOIN workers_shape s ON s.id = m.shape_id
        ORDER BY array_position(%(ids)s, m.id)
        """,
        {"ids": list(run_ids), "node": node_id, "name": node_name, "lease": settings.GANTRY_LEASE_S},
    )
    return _claimed(cursor.fetchall(), adopted=False)


def adopt(
    cursor: CursorWrapper, node_id: int, run_ids: Sequence[int] | None, *, crashed: bool
) -> list[ClaimedRun]:
    """RUNNING -> RUNNING: this node takes its own runs over; only the epoch grows.

    ``run_ids`` None means every run of the node (a worker's start). ``crashed`` says that the worker before
    died without a goodbye, or that these runs' runner failed: they become suspects.
    """
    cursor.execute(
        f"""
        WITH mine AS ( -- what the same node runs, locked in the order of ids
            SELECT id FROM workers_run
            WHERE node_id = %(node)s AND state = 'RUNNING' AND (%(all)s OR id = ANY(%(ids)s))
            ORDER BY id FOR UPDATE
        ), m AS ( -- only the lease epoch grows: the worker before is fenced off
            UPDATE workers_run r SET lease_epoch = r.lease_epoch + 1, crashes = r.crashes + %(crash)s,
                lease_until = now() + %(lease)s * interval '1 second'
            FROM mine WHERE r.id = mine.id RETURNING r.*
        )
        SELECT {_ADOPTED_COLUMNS} FROM m
        JOIN workers_tenant t ON t.id = m.tenant_id JOIN workers_shape s ON s.id = m.shape_id
        JOIN workers_attempt a ON a.run_id = m.id AND a.number = m.attempt ORDER BY m.id
        """,
        {
            "node": node_id,
            "all": run_ids is None,
            "ids": list(run_ids or ()),
            "crash": 1 if crashed else 0,
            "lease": settings.GANTRY_LEASE_S,
        },
    )
    return _claimed(cursor.fetchall(), adopted=True)


def lock(cursor: CursorWrapper, run_ids: Sequence[int]) -> None:
    """Lock the runs of several transitions of one commit in order, so that nobody waits in a circle."""
    cursor.execute("SELECT 1 FROM workers_run WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [list(run_ids)])


def _leave_running(
    cursor: CursorWrapper,
    outcomes: Sequence[Outcome],
    change: str,
    extra: str,
    by: str,
    *,
    ends: bool = False,
) -> set[int]:
    """What ``finish``, ``retry`` and ``release`` share: close the attempt, free the node, tell."""
    cursor.execute(
        f"""
        -- what the worker reports, one row a run
        WITH i AS (SELECT * FROM unnest(%(id)s::bigint[], %(attempt)s::int[], %(epoch)s::int[],
                %(state)s::text[], %(reason)s::text[], %(message)s::text[], %(exit)s::int[],
                %(ago)s::float8[], %(bytes)s::bigint[], %(cut)s::bool[], %(backoff)s::float8[],
                %(facts)s::text[])
            AS i(id, attempt, epoch, to_state, why, words, code, ago, log_bytes, log_truncated, backoff,
                facts)),
        -- only those still held under this lease: the fence
        locked AS (SELECT i.*, r.node_id AS on_node, r.callback_url <> '' AS owes,
                r.started_at IS NULL AND i.ago IS NOT NULL AS untold FROM workers_run r
            JOIN i ON r.id = i.id AND r.attempt = i.attempt AND r.lease_epoch = i.epoch
            WHERE r.state = 'RUNNING' {extra} ORDER BY r.id FOR UPDATE OF r),
        -- the change of state; the lease ends
        moved AS (UPDATE workers_run r SET lease_until = NULL, message = l.words, reason = l.why, {change}
            FROM locked l WHERE r.id = l.id
            RETURNING r.id, r.attempt, r.state, r.shape_id, l.on_node, l.to_state, l.why, l.words, l.code,
                l.ago, l.log_bytes, l.log_truncated, l.facts, l.owes, l.untold),
        -- closes the attempt
        closed AS (UPDATE workers_attempt a SET state = m.to_state, reason = m.why, message = m.words,
                exit_code = m.code, finished_at = now(), log_bytes = m.log_bytes,
                log_truncated = m.log_truncated, facts = a.facts || m.facts::jsonb,
                started_at = coalesce(a.started_at, now() - m.ago * interval '1 second')
            FROM moved m WHERE a.run_id = m.id AND a.number = m.attempt),
        -- leaves the event
        told AS (INSERT INTO workers_runevent (run_id, from_state, to_state, reason, attempt, by)
            SELECT m.id, 'RUNNING', m.state, m.why, m.attempt, %(by)s FROM moved m),
        -- gives resources back to the node
        freed AS (UPDATE workers_node n SET cpu_m_used = n.cpu_m_used - u.cpu,
                mem_mb_used = n.mem_mb_used - u.mem, slots_used = n.slots_used - u.runs
            FROM (SELECT m.on_node, sum(s.cpu_m) cpu, sum(s.mem_mb) mem, count(*) runs
                  FROM moved m JOIN workers_shape s ON s.id = m.shape_id GROUP BY m.on_node) u
            WHERE n.id = u.on_node),
        -- and host ports
        ports AS (DELETE FROM workers_hostport h USING moved m WHERE h.run_id = m.id)
        SELECT id, owes, untold FROM moved
        """,
        {**_reported(outcomes), "by": by},
    )
    rows = cursor.fetchall()
    _owe(cursor, [(run_id, untold) for run_id, owes, untold in rows if owes], by, ends=ends)
    return {row[0] for row in rows}


def _owe(cursor: CursorWrapper, owing: Sequence[tuple[int, bool]], by: str, *, ends: bool) -> None:
    """Callbacks of attempts that are over: the end (``ends``), and the start where it was not told before."""
    outbox.owe(
        cursor,
        [(run_id, outbox.RUNNING) for run_id, untold in owing if untold]
        + [(run_id, outbox.ENDED) for run_id, _ in owing if ends],
        by=by,
    )


def _reported(outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    """What the worker reports, column by column."""
    return {
        "id": [item.lease.run_id for item in outcomes],
        "attempt": [item.lease.attempt for item in outcomes],
        "epoch": [item.lease.epoch for item in outcomes],
        "state": [str(item.state) for item in outcomes],
        "reason": [str(item.reason) for item in outcomes],
        "message": [item.message.replace("\0", "") for item in outcomes],
        "exit": [item.exit_code for item in outcomes],
        "ago": [item.started_ago for item in outcomes],
        "bytes": [item.log_bytes for item in outcomes],
        "cut": [item.log_truncated for item in outcomes],
        "backoff": [item.backoff_s for item in outcomes],
        "facts": [json.dumps(dict(item.facts)) for item in outcomes],
    }


def finish(cursor: CursorWrapper, outcomes: Sequence[Outcome], *, by: str) -> set[int]:
    """RUNNING -> SUCCEEDED | FAILED | CANCELLED. Returns the runs that were ours to finish."""
    return _leave_running(
        cursor,
        outcomes,
        """state = l.to_state, exit_code = l.code, finished_at = now(),
           started_at = coalesce(r.started_at, now() - l.ago * interval '1 second')""",
        "",
        by,
        ends=True,
    )


def retry(cursor: CursorWrapper, outcomes: Sequence[Outcome], *, by: str) -> set[int]:
    """RUNNING -> PENDING with one try less, after ``backoff_s``. A run with a cancel request is left out."""
    return _leave_running(
        cursor,
        outcomes,
        f"""state = 'PENDING', retries_left = r.retries_left - 1, node_id = NULL, exit_code = NULL,
           started_at = NULL, not_before = now() + l.backoff * interval '1 second',
           expires_at = greatest(r.expires_at,
               now() + (l.backoff + {settings.GANTRY_EXPIRE_S:d}) * interval '1 second')""",
        f"""AND r.cancel_requested_at IS NULL AND r.retries_left > 0
            AND (NOT r.losses_only OR i.why IN ({_LOSSES}))""",
        by,
    )


def release(cursor: CursorWrapper, outcomes: Sequence[Outcome], *, by: str) -> set[int]:
    """RUNNING -> PENDING for what never started: no try is used up. A run to be cancelled is left out."""
    return _leave_running(
        cursor,
        outcomes,
        """state = 'PENDING', node_id = NULL, exit_code = NULL, started_at = NULL,
           not_before = CASE WHEN l.backoff > 0 THEN now() + l.backoff * interval '1 second' END""",
        "AND r.cancel_requested_at IS NULL",
        by,
    )


def cancel(cursor: CursorWrapper, run_ids: Sequence[int], *, by: str, operator: bool) -> set[int]:
    """PENDING -> CANCELLED. Runs in another state are left as they are."""
    return _leave_pending(
        cursor,
        "id = ANY(%(ids)s)",
        {"ids": list(run_ids)},
        State.CANCELLED,
        Reason.OPERATOR if operator else Reason.NONE,
        "Cancelled by an operator before it started" if operator else "Cancelled before it started",
        by,
    )


def request_cancel(cursor: CursorWrapper, run_ids: Sequence[int], *, operator: bool) -> set[int]:
    """Ask the workers of running runs to stop them: a request, no change of state; may be repeated."""
    cursor.execute(
        """UPDATE workers_run SET cancel_requested_at = coalesce(cancel_requested_at, now()),
               cancelled_by_operator = cancelled_by_operator OR %s
           WHERE id = ANY(%s) AND state = 'RUNNING' RETURNING id""",
        [operator, list(run_ids)],
    )
    return {row[0] for row in cursor.fetchall()}


def expire(cursor: CursorWrapper, limit: int, *, by: str) -> set[int]:
    """PENDING -> FAILED for runs that waited longer than their limit, at most ``limit`` of them."""
    return _leave_pending(
        cursor,
        "expires_at <= now()",
        {},
        State.FAILED,
        Reason.EXPIRED,
        "Waited longer than its limit and was not started",
        by,
        limit,
    )


def reject(cursor: CursorWrapper, run_ids: Sequence[int], message: str, *, by: str) -> set[int]:
    """PENDING -> FAILED because a policy that changed after submission refuses it."""
    return _leave_pending(
        cursor, "id = ANY(%(ids)s)", {"ids": list(run_ids)}, State.FAILED, Reason.REJECTED, message, by
    )


def _leave_pending(
    cursor: CursorWrapper,
    which: str,
    params: dict[str, Any],
    state: State,
    reason: Reason,
    message: str,
    by: str,
    limit: int | None = None,
) -> set[int]:
    cursor.execute(
        f"""
        -- what has not been claimed, locked in the order of ids
        WITH locked AS (SELECT id FROM workers_run WHERE state = 'PENDING' AND {which}
            ORDER BY id LIMIT %(limit)s FOR UPDATE),
        -- it ends without an attempt: there is nothing to close and nothing to give back
        moved AS (UPDATE workers_run r SET state = %(state)s, reason = %(reason)s, message = %(message)s,
                finished_at = now(), not_before = NULL
            FROM locked l WHERE r.id = l.id AND r.state = 'PENDING'
            RETURNING r.id, r.attempt, r.callback_url <> '' AS owes),
        -- leaves the event
        told AS (INSERT INTO workers_runevent (run_id, from_state, to_state, reason, attempt, by)
            SELECT id, 'PENDING', %(state)s, %(reason)s, attempt, %(by)s FROM moved)
        SELECT id, owes FROM moved
        """,
        {
            **params,
            "limit": limit,
            "state": str(state),
            "reason": str(reason),
            "message": message,
            "by": by,
        },
    )
    rows = cursor.fetchall()
    outbox.owe(cursor, [(run_id, outbox.ENDED) for run_id, owes in rows if owes], by=by)
    return {row[0] for row in rows}


def submit(cursor: CursorWrapper, new: NewRun) -> tuple[int, datetime]:
    """Nothing -> PENDING: one INSERT. Returns (run id, time of submission).

    The order key is the time of submission in microseconds, shifted by priority: 1 (high) goes before normal
    work (5) that was submitted up to GANTRY_AGING_S earlier, so that nobody starves.
    """
    cursor.execute(
        """INSERT INTO workers_run (tenant_id, family, kind, name, owner_id, shape_id, spec, priority,
               retries_left, losses_only, timeout_s, grace_s, callback_url, retry_of_id, private_to,
               expires_at, rank)
           VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s, %s, %s, %s,
               now() + %s * interval '1 second',
               (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + %s) RETURNING id, created_at""",
        [
            new.tenant_id,
            new.family,
            new.kind,
            new.name,
            new.owner_id,
            new.shape_id,
            new.spec,
            new.priority,
            new.retries,
            new.losses_only,
            new.timeout_s,
            new.grace_s,
            new.callback_url,
            new.retry_of,
            new.private_to,
            new.expires_in_s,
            (new.priority - 5) * settings.GANTRY_AGING_S * 250_000,
        ],
    )
    run_id, created_at = cursor.fetchone()
    return run_id, created_at
