"""What is told of an attempt under its lease, and asked: its output, is it still wanted, how it has ended.

Everything goes through the scribe and is waited for, however long the database is away. Raises Detached when
the worker stops meanwhile, or the lease is not ours any more.
Must not import services, families or Celery.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import structlog

from workers.logs.capture import Shipment
from workers.node.attempt.outcomes import masked
from workers.node.attempt.watch import Detached, Watch
from workers.node.leftovers import Leftovers
from workers.node.scribe import Entry, Scribe
from workers.runs.retries import backoff_s, may_retry
from workers.runtimes.base import Output, Runtime
from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import Outcome
from workers.vocabulary.states import Reason, State

log = structlog.get_logger(__name__)

#: How often the run's message is changed while it is being prepared, in seconds.
_TELL_S = 1.0


class Telling:
    """Used by all threads that carry out runs."""

    def __init__(self, scribe: Scribe, detaching: threading.Event, leftovers: Leftovers) -> None:
        self._scribe = scribe
        self._detaching = detaching
        self._leftovers = leftovers

    def stored(self, watch: Watch, shipment: Shipment) -> bool:
        """Store output while it runs. Waits for it: output is read no faster than it can be stored."""
        return self._written(Entry("log", watch.lease, shipment=shipment, family=watch.run.family))

    def _written(self, entry: Entry) -> bool:
        """Wait for the commit, however long the database is away; False when the lease was not ours."""
        done = self._scribe.write(entry)
        while True:
            try:
                return done.result(timeout=0.5)
            except TimeoutError:
                if self._detaching.is_set():
                    raise Detached from None

    def rest(self, watch: Watch, output: Output) -> Shipment:
        """What is left of the output after the end; all but the last part is stored at once."""
        shipment = output.pending(final=True)
        while shipment.more:
            self.keep(watch, output, shipment)
            shipment = output.pending(final=True)
        return shipment

    def keep(self, watch: Watch, output: Output, shipment: Shipment) -> None:
        """Store output after the end, at once. Raises Detached when the lease was not ours."""
        if not self.stored(watch, shipment):
            watch.fenced.set()
            raise Detached
        output.mark(shipment)

    def teller(self, watch: Watch, what: Literal["told", "storing"] = "told") -> Callable[[str], None]:
        """Writes what is being done to the run's message, at most once a second, waiting for nothing."""
        told_at = float("-inf")

        def tell(message: str) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at >= _TELL_S:
                told_at = now
                self._scribe.write(Entry(what, watch.lease, message=message))

        return tell

    def still_wanted(self, watch: Watch) -> bool:
        """Ask the database, however long it is away: False when a cancel was accepted. Raises Detached."""
        question = Entry("may_start", watch.lease)
        answer = self._scribe.write(question)
        while not self.unwanted(watch):
            with contextlib.suppress(TimeoutError):  # while the database is away
                if not answer.result(timeout=0.5):
                    watch.fenced.set()
                elif question.cancel:
                    watch.operator = watch.operator or question.cancel == "operator"
                    watch.cancel.set()
                    log.info("run.cancel_heard", by="runner", operator=watch.operator)
                break
        if watch.fenced.is_set():
            raise Detached
        return not watch.cancel.is_set()

    def unwanted(self, watch: Watch) -> bool:
        """Nobody waits for the end of its preparation any more."""
        return watch.cancel.is_set() or watch.fenced.is_set() or self._detaching.is_set()

    def never_started(
        self, watch: Watch, runtime: Runtime, state: State, reason: Reason, message: str
    ) -> bool:
        """It has ended before anything ran: False, as the answer to "was it started?"."""
        if state is State.CANCELLED and (watch.operator or watch.run.operator_cancel):
            reason = Reason.OPERATOR
        self.end(watch, runtime, Outcome(watch.lease, state, reason, message), None)
        return False

    def give_back(
        self, watch: Watch, runtime: Runtime, message: str, backoff: float, reason: Reason = Reason.DROPPED
    ) -> bool:
        """It goes back to the queue for ``backoff`` seconds before anything ran: False, as above."""
        outcome = Outcome(watch.lease, State.FAILED, reason, message, backoff_s=backoff)
        self._close(watch, runtime, Entry("release", watch.lease, outcome, family=watch.run.family))
        return False

    def end(self, watch: Watch, runtime: Runtime, outcome: Outcome, rest: Shipment | None) -> None:
        """Finish, or queue the next try when one is left and another try may mend the failure."""
        run = watch.run
        again = (
            outcome.state is State.FAILED
            and may_retry(outcome.reason, losses_only=run.losses_only)
            and run.retries_left > 0
            and not watch.cancel.is_set()
        )
        if again:
            outcome = replace(outcome, backoff_s=backoff_s(outcome.reason, run.lease.attempt))
        self._close(
            watch,
            runtime,
            Entry("retry" if again else "finish", watch.lease, outcome, shipment=rest, family=run.family),
        )

    def _close(self, watch: Watch, runtime: Runtime, entry: Entry) -> None:
        watch.closing = True
        if entry.outcome is not None:
            message = masked(entry.outcome.message, watch.run.secrets)
            told = runtime.facts(watch.run).told
            entry.outcome = replace(entry.outcome, message=message, facts=told)
        if not self._written(entry):
            watch.fenced.set()
            raise Detached
        if (outcome := entry.outcome) is not None:
            log.info(
                "run.ended" if entry.what == "finish" else f"run.{entry.what}",
                state=str(outcome.state),
                reason=str(outcome.reason),
                exit_code=outcome.exit_code,
            )
        # It has ended, whatever its command has left here: what cannot be removed now the agent tries again.
        with self._leftovers.removing((runtime.kind, watch.lease.run_id, watch.lease.attempt)):
            runtime.cleanup(watch.lease.run_id, watch.lease.attempt)
        step("runner.after_cleanup")
