"""One receiver's turn: what is due there is sent, one after another, and every attempt recorded.

Runs in a thread of the deliverer's pools and holds no database connection while it waits for an answer.
Must not import the deliverer, services, families or Celery.
"""

from __future__ import annotations

import contextlib
import threading
import time

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from workers.callbacks import rows, schedule, sending, signing
from workers.callbacks.rows import Due, Receiver
from workers.callbacks.schedule import Decision, Sent
from workers.vocabulary.crashpoints import step

log = structlog.get_logger(__name__)

#: How long one receiver may keep a thread while others wait, in seconds.
_TURN_S = 2.0


class Stopping(Exception):
    """The process ends: a delivery under way is left, and made again by the next deliverer."""


class Turns:
    """Serves receivers, in many threads at once, and counts what came of it.

    ``detaching``: no further callback is sent. ``hurry``: not even the answer is waited for.
    """

    def __init__(self, detaching: threading.Event, hurry: threading.Event) -> None:
        self._detaching = detaching
        self._hurry = hurry
        self._lock = threading.Lock()
        self._counts = {"delivered": 0, "failed": 0, "dead": 0}

    def serve(self, receiver: Receiver) -> None:
        """Send what is due there, one after another, until nothing is or the turn is over."""
        began = time.monotonic()
        while True:
            due = rows.next_due(receiver)
            if due is None:
                rows.release(receiver.lease)
                return
            over = not due.more or time.monotonic() - began > _TURN_S
            sent = decision = None
            if due.disabled:
                decision = Decision("disabled", None, True, due.slow, due.failures, None)
            else:
                values = signing.valid(receiver.tenant_id)
                connection.close()  # a thread that waits holds none
                step("callbacks.before_send")
                sent = sending.send(
                    due.url,
                    due.message_id,
                    due.body,
                    values,
                    total_s=settings.GANTRY_CALLBACK_TIMEOUT_S,
                    tick=self._still_wanted,
                )
                step("callbacks.after_send")
                decision = schedule.decide(
                    sent,
                    attempts_made=due.attempts_made + 1,
                    age_s=due.age_s + sent.ms / 1000,
                    slow=due.slow,
                    failures=due.failures,
                )
                over = over or decision.rests_s is not None or decision.slow is not (receiver.lane == "slow")
            if not self._recorded(receiver, due, sent, decision, release=over):
                log.warning("callbacks.lease_taken", receiver=receiver.address, callback=due.id)
                rows.release(receiver.lease)  # if it is ours still, and only the callback has changed
                return
            self._tell(receiver, due, sent, decision)
            if over:
                return
            if self._detaching.is_set():
                rows.release(receiver.lease)
                return

    def _recorded(
        self, receiver: Receiver, due: Due, sent: Sent | None, decision: Decision, *, release: bool
    ) -> bool:
        """Record, however long the database is away while the lease stands; then somebody sends it again."""
        until = time.monotonic() + rows.lease_s() / 2
        while True:
            try:
                return rows.record(receiver, due, sent, decision, release=release)
            except DatabaseError:
                with contextlib.suppress(Exception):
                    connection.close()
                if time.monotonic() > until or self._hurry.wait(0.5):
                    raise

    def _tell(self, receiver: Receiver, due: Due, sent: Sent | None, decision: Decision) -> None:
        with self._lock:
            if decision.state in ("delivered", "dead"):
                self._counts[decision.state] += 1
            if sent is not None and not sent.accepted:
                self._counts["failed"] += 1
        if sent is None or sent.accepted:
            log.debug("callback.delivered", callback=due.id, receiver=receiver.address)
            return
        log.info(
            "callback.failed",
            callback=due.id,
            receiver=receiver.address,
            status=sent.status,
            error=sent.error,
            attempt=due.attempts_made + 1,
            then=decision.state,
            next_in_s=None if decision.next_in_s is None else round(decision.next_in_s, 1),
        )

    def _still_wanted(self) -> None:
        if self._hurry.is_set():
            raise Stopping

    def take_counts(self) -> dict[str, int]:
        """What was delivered, failed and given up since the last time."""
        with self._lock:
            counts, self._counts = self._counts, dict.fromkeys(self._counts, 0)
        return counts

    def put_back(self, counts: dict[str, int]) -> None:
        """What could not be told: count it the next time."""
        with self._lock:
            for key, number in counts.items():
                self._counts[key] += number
