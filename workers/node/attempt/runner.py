"""One run on this node, readable from top to bottom: prepare -> start -> watch -> collect -> finish.

``execute`` is called in a thread of Celery's pool or of the local pool. It holds no database connection
while it waits; everything it tells goes through the scribe. It may be left at any moment (the worker stops,
or dies): whatever was started goes on, and the next worker adopts it under the same name.
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
from workers.node.attempt.outcomes import (
    interpret,
    lost_message,
    masked,
    noted,
    unprepared_message,
    with_facts,
)
from workers.node.attempt.questions import Questions
from workers.node.attempt.storing import Storing, Unstored
from workers.node.attempt.watch import Detached, Watch
from workers.node.scribe import Entry, Scribe
from workers.runs.retries import backoff_s, may_retry
from workers.runtimes.base import Output, PrepareFailed, Presence, Result, Runtime
from workers.vocabulary.crashpoints import step
from workers.vocabulary.errors import EngineError, SecretUnreadable
from workers.vocabulary.leases import ClaimedRun, Outcome
from workers.vocabulary.states import STOPPING, Reason, State

log = structlog.get_logger(__name__)

#: A command that ends within this is written to the database once, as started and ended.
_BRIEF_S = 0.03
#: How often output of a running attempt is shipped, in seconds.
_SHIP_S = 0.5
#: How often the run's message is changed while it is being prepared, in seconds.
_TELL_S = 1.0
#: Until orders that could not be read are read again.
_ORDERS_S = 30.0
#: Until a runtime that could not tell is asked again, in seconds.
_AGAIN_S = 1.0


class Runner:
    """Executes runs with the node's runtimes."""

    def __init__(self, runtimes: dict[str, Runtime], scribe: Scribe, detaching: threading.Event) -> None:
        self._runtimes = runtimes
        self._scribe = scribe
        self._detaching = detaching
        self._questions = Questions(detaching)

    def execute(self, watch: Watch) -> None:
        """Bring one claimed run to its end. Never raises for anything that the run itself does."""
        run = watch.run
        structlog.contextvars.bind_contextvars(
            run=run.lease.run_id, attempt=run.lease.attempt, tenant=run.tenant, family=run.family
        )
        runtime = self._runtimes[run.kind]
        try:
            self._execute(watch, runtime)
        except Detached:
            log.info("run.left", reason="lease taken away" if watch.fenced.is_set() else "worker stops")
        finally:
            structlog.contextvars.clear_contextvars()

    def _execute(self, watch: Watch, runtime: Runtime) -> None:
        if not self._read_secrets(watch, runtime):
            return
        run = watch.run
        presence = self._presence(watch, runtime) if run.adopted else Presence.ABSENT
        if presence is Presence.LOST or (
            run.started_ago is not None and presence in (Presence.ABSENT, Presence.PREPARED)
        ):
            self._end_lost(watch, runtime)
            return
        if presence in (Presence.ABSENT, Presence.PREPARED) and not self._start(watch, runtime):
            return
        watch.started = True
        started_at = time.monotonic() - _ran_for(run, presence)
        output = self._output(watch, runtime)
        result = self._watch(watch, runtime, output, started_at)
        unstored = self._store(watch, runtime, output, result)
        self._finish(watch, runtime, output, result, unstored)

    def _read_secrets(self, watch: Watch, runtime: Runtime) -> bool:
        """Put the spec's secrets into the run's hands; False when it ended because one cannot be read.

        Without them the output of what runs already cannot be cleaned: then the error goes through, the
        attempt is left as it is and is taken over again when its lease has run out.
        """
        try:
            texts = self._questions.secrets(watch)
        except SecretUnreadable as error:
            if watch.run.adopted:
                raise
            return self._never_started(watch, runtime, State.FAILED, Reason.CREATE, error.message)
        watch.run = replace(watch.run, secrets=texts)
        return True

    def _read_orders(self, watch: Watch, runtime: Runtime) -> bool:
        """What a run that carries a batch has to do; False when it ended because nothing is left to do."""
        if "batch" not in watch.run.spec:
            return True
        try:
            orders = self._questions.orders(watch)
        except SecretUnreadable as error:
            return self._never_started(watch, runtime, State.FAILED, Reason.CREATE, error.message)
        except EngineError as error:
            return self._give_back(watch, runtime, f"its orders cannot be read: {error.message}", _ORDERS_S)
        if orders is None:
            message = "Nothing of its batch was left to do"
            return self._never_started(watch, runtime, State.SUCCEEDED, Reason.NONE, message)
        watch.run = replace(watch.run, orders=orders)
        return True

    def _presence(self, watch: Watch, runtime: Runtime) -> Presence:
        """What is there of an adopted run; waits for whoever can tell."""
        while (presence := runtime.presence(watch.run)) is Presence.UNKNOWN:
            if watch.fenced.is_set() or self._detaching.wait(_AGAIN_S):
                raise Detached
        return presence

    def _output(self, watch: Watch, runtime: Runtime) -> Output:
        """Its output, of an adopted run from where it is stored."""
        if not watch.run.adopted:
            return runtime.output(watch.run, {})
        watch.run = replace(watch.run, reported=self._questions.reported(watch))
        shipped = self._questions.shipped(watch)
        return runtime.output(watch.run, shipped)

    def _start(self, watch: Watch, runtime: Runtime) -> bool:
        """Prepare and start; False when the run ended or went back to the queue before anything ran."""
        run = watch.run
        if watch.cancel.is_set() or run.cancel_requested:
            return self._never_started(
                watch, runtime, State.CANCELLED, Reason.NONE, "Cancelled before it started"
            )
        if self._detaching.is_set() or watch.fenced.is_set():
            return self._give_back(watch, runtime, "the worker stopped before it was started", 0.0)
        if watch.stop_why == "crashes":
            message = unprepared_message(runtime.noun)
            return self._never_started(watch, runtime, State.FAILED, Reason.LOST, message)
        if watch.stop_why == "node_gone":
            return self._give_back(watch, runtime, "its node was removed before it was started", 0.0)
        if not self._read_orders(watch, runtime):
            return False
        run = watch.run
        try:
            step("runner.before_prepare")
            if count := len(run.spec.get("uris") or ()) + len(run.spec.get("inputs") or ()):
                self._scribe.write(
                    Entry("phase", watch.lease, message=f"fetching {_counted(count, 'input')}")
                )
            runtime.prepare(run, lambda: self._unwanted(watch), self._teller(watch))
            step("runner.after_prepare")
            if not self._may_start(watch, runtime):
                return False
            step("runner.before_start")
            watch.started = True
            runtime.start(run, watch.as_of)
            step("runner.after_start")
        except PrepareFailed as failure:
            if watch.fenced.is_set():
                raise Detached from failure
            left = self._detaching.is_set() and not watch.cancel.is_set()  # it may have failed for that
            if failure.ours or left:
                log.warning("run.given_back", message=failure.message)
                reason = failure.reason if failure.reason is Reason.INPUT else Reason.DROPPED
                return self._give_back(watch, runtime, failure.message, failure.wait_s, reason)
            state = State.CANCELLED if watch.cancel.is_set() else State.FAILED
            return self._never_started(watch, runtime, state, failure.reason, failure.message)
        return True

    def _may_start(self, watch: Watch, runtime: Runtime) -> bool:
        """Ask right before the start; False when the run ended or went back to the queue instead.

        The agent may hear of a cancel later than its client is told that it is accepted. From the answer on
        the run counts as running: a cancel that is committed later kills it.
        """
        if told := runtime.facts(watch.run).told:
            self._scribe.write(Entry("facts", watch.lease, facts=told))
        if not self._still_wanted(watch):
            return self._never_started(
                watch, runtime, State.CANCELLED, Reason.NONE, "Cancelled before it started"
            )
        if self._detaching.is_set():
            return self._give_back(watch, runtime, "the worker stopped before it was started", 0.0)
        return True

    def _still_wanted(self, watch: Watch) -> bool:
        """Ask the database, however long it is away: False when a cancel was accepted. Raises Detached."""
        question = Entry("may_start", watch.lease)
        answer = self._scribe.write(question)
        while not self._unwanted(watch):
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

    def _unwanted(self, watch: Watch) -> bool:
        """Nobody waits for the end of its preparation any more."""
        return watch.cancel.is_set() or watch.fenced.is_set() or self._detaching.is_set()

    def _teller(self, watch: Watch, what: Literal["told", "storing"] = "told") -> Callable[[str], None]:
        """Writes what is being done to the run's message, at most once a second, waiting for nothing."""
        told_at = float("-inf")

        def tell(message: str) -> None:
            nonlocal told_at
            now = time.monotonic()
            if now - told_at >= _TELL_S:
                told_at = now
                self._scribe.write(Entry(what, watch.lease, message=message))

        return tell

    def _watch(self, watch: Watch, runtime: Runtime, output: Output, started_at: float) -> Result:
        """Wait for the end; ship output, honour cancels and the time limit meanwhile."""
        run = watch.run
        result = runtime.wait(run, _BRIEF_S if run.started_ago is None else 0.0)
        if run.started_ago is None and (result is None or run.spec.get("outputs")):
            facts = runtime.facts(run)
            message = noted(f"{runtime.noun} is running", facts)
            self._scribe.write(
                Entry("started", run.lease, since=started_at, message=message, facts=facts.told)
            )
        deadline = started_at + run.timeout_s if run.timeout_s else None
        stopped = waits = ""
        while result is None:
            if watch.fenced.is_set() or self._detaching.is_set():
                raise Detached
            why = self._why_stop(watch, deadline)
            if why and why != stopped:
                log.info("run.stopping", why=why, grace_s=run.grace_s)
                step("runner.before_stop")
                runtime.stop(run, why, run.grace_s)
                step("runner.after_stop")
                stopped = stopped or why
            if stopped and (now := runtime.facts(run).waits) != waits:
                waits = now
                words = f"{STOPPING}{waits}" if waits else f"{runtime.noun} is being stopped"
                self._scribe.write(Entry("storing", watch.lease, message=words))
            self._ship(watch, output)
            wait = (
                _SHIP_S
                if deadline is None or stopped
                else max(0.0, min(_SHIP_S, deadline - time.monotonic()))
            )
            result = runtime.wait(run, wait)
        step("runner.after_exit")
        return result

    @staticmethod
    def _why_stop(watch: Watch, deadline: float | None) -> str:
        if watch.stop_why:
            return watch.stop_why
        if watch.cancel.is_set() or watch.run.cancel_requested:
            return "cancel"
        return "timeout" if deadline is not None and time.monotonic() >= deadline else ""

    def _ship(self, watch: Watch, output: Output) -> None:
        shipment = output.pending()
        if (shipment.chunks or shipment.stale or shipment.report) and self._stored(watch, shipment):
            output.mark(shipment)

    def _stored(self, watch: Watch, shipment: Shipment) -> bool:
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

    def _rest(self, watch: Watch, output: Output) -> Shipment:
        """What is left of the output after the end; all but the last part is stored at once."""
        shipment = output.pending(final=True)
        while shipment.more:
            self._keep(watch, output, shipment)
            shipment = output.pending(final=True)
        return shipment

    def _keep(self, watch: Watch, output: Output, shipment: Shipment) -> None:
        """Store output after the end, at once. Raises Detached when the lease was not ours."""
        if not self._stored(watch, shipment):
            watch.fenced.set()
            raise Detached
        output.mark(shipment)

    def _store(self, watch: Watch, runtime: Runtime, output: Output, result: Result) -> Unstored | None:
        """Store what a run that has succeeded made; None when all of it is where it belongs."""
        places = runtime.places(watch.run) if watch.run.spec.get("outputs") else None
        if places is None or self._outcome(watch, runtime, result).state is not State.SUCCEEDED:
            return None
        self._keep(watch, output, self._rest(watch, output))
        count = _counted(len(watch.run.spec["outputs"]), "output")
        self._scribe.write(Entry("phase", watch.lease, message=f"storing {count}"))
        tell = self._teller(watch, "storing")
        installation = self._questions.installation(watch)
        unstored = Storing(watch, places, installation, self._detaching, self._still_wanted, tell).store()
        if unstored is None:
            self._scribe.write(Entry("phase", watch.lease, message=f"stored {count}"))
        return unstored

    def _outcome(self, watch: Watch, runtime: Runtime, result: Result) -> Outcome:
        operator = watch.operator or watch.run.operator_cancel
        return interpret(watch.run, runtime.noun, result, operator=operator)

    def _finish(
        self, watch: Watch, runtime: Runtime, output: Output, result: Result, unstored: Unstored | None
    ) -> None:
        """Store the rest of the output and the end in one commit, then clean up."""
        shipment = self._rest(watch, output)
        outcome = self._outcome(watch, runtime, result)
        if unstored is not None:
            outcome = replace(outcome, state=unstored.state, reason=unstored.reason, message=unstored.message)
        outcome = replace(outcome, message=noted(outcome.message, runtime.facts(watch.run)))
        self._end(
            watch, runtime, with_facts(outcome, shipment, None if result.error else result.ran_s), shipment
        )

    def _end_lost(self, watch: Watch, runtime: Runtime) -> None:
        run = watch.run
        state = State.CANCELLED if run.cancel_requested else State.FAILED
        output = self._output(watch, runtime)
        shipment = self._rest(watch, output)
        outcome = Outcome(run.lease, state, Reason.LOST, lost_message(runtime.noun))
        self._end(watch, runtime, with_facts(outcome, shipment, None), shipment)

    def _never_started(
        self, watch: Watch, runtime: Runtime, state: State, reason: Reason, message: str
    ) -> bool:
        if state is State.CANCELLED and (watch.operator or watch.run.operator_cancel):
            reason = Reason.OPERATOR
        self._end(watch, runtime, Outcome(watch.lease, state, reason, message), None)
        return False

    def _give_back(
        self, watch: Watch, runtime: Runtime, message: str, backoff: float, reason: Reason = Reason.DROPPED
    ) -> bool:
        outcome = Outcome(watch.lease, State.FAILED, reason, message, backoff_s=backoff)
        self._close(watch, runtime, Entry("release", watch.lease, outcome, family=watch.run.family))
        return False

    def _end(self, watch: Watch, runtime: Runtime, outcome: Outcome, rest: Shipment | None) -> None:
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
        runtime.cleanup(watch.lease.run_id, watch.lease.attempt)
        step("runner.after_cleanup")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _ran_for(run: ClaimedRun, presence: Presence) -> float:
    """Seconds since its start. One that its worker did not live to record came soon after the claim.

    A time limit that began with each adoption could be put off for ever.
    """
    if run.started_ago is not None:
        return run.started_ago
    return run.claimed_ago if presence in (Presence.RUNNING, Presence.EXITED) else 0.0
