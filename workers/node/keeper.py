"""Keeps what a worker holds: the heartbeat of its node, the leases of its runs, the clock of the guard.

All three say "the database knew at that moment that we live", so they are told together and in this order.
``as_of`` is that moment, by the clock that counts from the machine's start and that the guard uses, too.
Must not import the agent or Celery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from django.conf import settings
from django.db import connection

from workers.node import registration
from workers.node.attempt.watch import Watch
from workers.node.leftovers import Leftovers
from workers.node.registration import Registration
from workers.runs import running
from workers.runtimes.base import Runtime
from workers.vocabulary.crashpoints import step

log = structlog.get_logger(__name__)

#: A worker that has lived this long clears its runs of the suspicion of having killed the one before.
_TRUSTED_AFTER_S = 60.0


class Keeper:
    """One per worker; ``beat`` is called by one thread at a time."""

    def __init__(
        self,
        held: Registration,
        runtimes: Mapping[str, Runtime],
        watches: Callable[[], Iterable[Watch]],
        leftovers: Leftovers,
    ) -> None:
        self._held = held
        self._leftovers = leftovers
        self._runtimes = runtimes
        self._watches = watches
        self._trusted_at: float | None = time.monotonic() + _TRUSTED_AFTER_S
        #: The moment before the last heartbeat that the database took.
        self.as_of = 0.0

    def beat(self, *, broker_ok: bool) -> str:
        """Tell the database, then the guard; returns the node's mode. Raises Superseded, DatabaseError."""
        troubles = {kind: _trouble(runtime) for kind, runtime in self._runtimes.items()}
        # Taken before the heartbeat: whatever stands still from here on, nobody counts too late.
        as_of = time.clock_gettime(time.CLOCK_BOOTTIME)
        mode = registration.heartbeat(self._held, troubles, broker_ok, self._leftovers.words())
        step("agent.after_heartbeat")
        self._renew(as_of)
        lost_after = settings.GANTRY_NODE_LOST_AFTER_S
        for kind, runtime in self._runtimes.items():
            try:
                runtime.renewed(as_of, lost_after - settings.GANTRY_GUARD_MARGIN_S, lost_after)
            except Exception:
                log.exception("guard.not_told", kind=kind, meaning="it kills as if this node were lost")
        self.as_of = as_of
        step("agent.after_renewal")
        if self._trusted_at is not None and time.monotonic() > self._trusted_at:
            self._trusted_at = None
            with connection.cursor() as cursor:
                running.clear_suspicion(cursor, self._held.node_id)
        return mode

    def _renew(self, as_of: float) -> None:
        watches = list(self._watches())
        if not watches:
            return
        with connection.cursor() as cursor:
            ours = running.renew(cursor, [watch.lease for watch in watches])
        still = {watch.lease for watch in self._watches()}
        for watch in watches:
            if watch.lease.run_id in ours:
                watch.as_of = as_of
            elif watch.lease in still and not watch.closing:
                log.warning("run.lease_taken", run=watch.lease.run_id, attempt=watch.lease.attempt)
                watch.fenced.set()

    def forgotten(self) -> list[int]:
        """Runs of this node that nobody here watches and whose lease ran out."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM workers_run WHERE node_id = %s AND state = 'RUNNING' AND lease_until < now()",
                [self._held.node_id],
            )
            expired = {row[0] for row in cursor.fetchall()}
        return sorted(expired - {watch.lease.run_id for watch in self._watches()})


def _trouble(runtime: Runtime) -> str:
    """What it says of itself. One that cannot be asked takes no work; the node and the others go on."""
    try:
        return runtime.trouble()
    except Exception as error:
        log.exception("runtime.trouble_unknown", kind=runtime.kind)
        return f"it cannot say whether it is well: {error}"
