"""One run on this node, readable from top to bottom: prepare -> start -> watch -> collect -> finish.

``execute`` is called in a thread of Celery's pool or of the local pool. It holds no database connection
while it waits; everything it tells goes through the scribe. It may be left at any moment (the worker stops,
or dies): whatever was started goes on, and the next worker adopts it under the same name.
Must not import services, families or Celery.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import structlog

from workers.node.attempt import outcomes
from workers.node.attempt.outcomes import lost_message, noted, unprepared_message, with_facts
from workers.node.attempt.questions import Questions
from workers.node.attempt.storing import Storing, Unstored
from workers.node.attempt.telling import Telling
from workers.node.attempt.watch import Detached, Watch, ran_for
from workers.node.leftovers import Leftovers
from workers.node.scribe import Entry, Scribe
from workers.runtimes.base import Output, PrepareFailed, Presence, Result, Runtime
from workers.vocabulary.crashpoints import step
from workers.vocabulary.errors import EngineError, SecretUnreadable
from workers.vocabulary.leases import Outcome
from workers.vocabulary.states import STOPPING, Reason, State

log = structlog.get_logger(__name__)

#: A command that ends within this is written to the database once, as started and ended.
_BRIEF_S = 0.03
#: How often output of a running attempt is shipped, in seconds.
_SHIP_S = 0.5
#: Until orders that could not be read are read again.
_ORDERS_S = 30.0
#: Until a runtime that could not tell is asked again, in seconds.
_AGAIN_S = 1.0


class Runner:
    """Executes runs with the node's runtimes."""

    def __init__(
        self,
        runtimes: dict[str, Runtime],
        scribe: Scribe,
        detaching: threading.Event,
        leftovers: Leftovers,
    ) -> None:
        self._runtimes = runtimes
        self._scribe = scribe
        self._telling = Telling(scribe, detaching, leftovers)
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
        started_at = time.monotonic() - ran_for(run, presence)
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
            return self._telling.never_started(watch, runtime, State.FAILED, Reason.CREATE, error.message)
        watch.run = replace(watch.run, secrets=texts)
        return True

    def _read_orders(self, watch: Watch, runtime: Runtime) -> bool:
        """What a run that carries a batch has to do; False when it ended because nothing is left to do."""
        if "batch" not in watch.run.spec:
            return True
        try:
            orders = self._questions.orders(watch)
        except SecretUnreadable as error:
            return self._telling.never_started(watch, runtime, State.FAILED, Reason.CREATE, error.message)
        except EngineError as error:
            return self._telling.give_back(
                watch, runtime, f"its orders cannot be read: {error.message}", _ORDERS_S
            )
        if orders is None:
            message = "Nothing of its batch was left to do"
            return self._telling.never_started(watch, runtime, State.SUCCEEDED, Reason.NONE, message)
        watch.run = replace(watch.run, orders=orders)
        return True

    def _presence(self, watch: Watch, runtime: Runtime) -> Presence:
        """What is there of an adopted run; waits for whoever can tell."""
        while True:
            try:
                presence = runtime.presence(watch.run)
            except OSError as error:  # no descriptor, no memory: it passes
                log.warning("run.not_seen", error=str(error))
                presence = Presence.UNKNOWN
            if presence is not Presence.UNKNOWN:
                return presence
            if watch.fenced.is_set() or self._detaching.wait(_AGAIN_S):
                raise Detached

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
            return self._telling.never_started(
                watch, runtime, State.CANCELLED, Reason.NONE, "Cancelled before it started"
            )
        if self._detaching.is_set() or watch.fenced.is_set():
            return self._telling.give_back(watch, runtime, "the worker stopped before it was started", 0.0)
        if watch.stop_why == "crashes":
            message = unprepared_message(runtime.noun, run.crashes)
            return self._telling.never_started(watch, runtime, State.FAILED, Reason.LOST, message)
        if watch.stop_why == "node_gone":
            return self._telling.give_back(watch, runtime, "its node was removed before it was started", 0.0)
        if not self._read_orders(watch, runtime):
            return False
        run = watch.run
        try:
            step("runner.before_prepare")
            if count := len(run.spec.get("uris") or ()) + len(run.spec.get("inputs") or ()):
                self._scribe.write(
                    Entry("phase", watch.lease, message=f"fetching {_counted(count, 'input')}")
                )
            runtime.prepare(run, lambda: self._telling.unwanted(watch), self._telling.teller(watch))
            step("runner.after_prepare")
            if not self._may_start(watch, runtime):
                return False
            step("runner.before_start")
            watch.started = True
            runtime.start(run, watch.as_of)
            step("runner.after_start")
        except (PrepareFailed, OSError) as error:
            if isinstance(error, OSError) and watch.started:
                raise
            failure = error if isinstance(error, PrepareFailed) else outcomes.unforeseen(error)
            if watch.fenced.is_set():
                raise Detached from failure
            left = self._detaching.is_set() and not watch.cancel.is_set()  # it may have failed for that
            if failure.ours or left:
                log.warning("run.given_back", message=failure.message)
                reason = failure.reason if failure.reason is Reason.INPUT else Reason.DROPPED
                return self._telling.give_back(watch, runtime, failure.message, failure.wait_s, reason)
            state = State.CANCELLED if watch.cancel.is_set() else State.FAILED
            return self._telling.never_started(watch, runtime, state, failure.reason, failure.message)
        return True

    def _may_start(self, watch: Watch, runtime: Runtime) -> bool:
        """Ask right before the start; False when the run ended or went back to the queue instead.

        The agent may hear of a cancel later than its client is told that it is accepted. From the answer on
        the run counts as running: a cancel that is committed later kills it.
        """
        if told := runtime.facts(watch.run).told:
            self._scribe.write(Entry("facts", watch.lease, facts=told))
        if not self._telling.still_wanted(watch):
            return self._telling.never_started(
                watch, runtime, State.CANCELLED, Reason.NONE, "Cancelled before it started"
            )
        if self._detaching.is_set():
            return self._telling.give_back(watch, runtime, "the worker stopped before it was started", 0.0)
        return True

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
        if (shipment.chunks or shipment.stale or shipment.report) and self._telling.stored(watch, shipment):
            output.mark(shipment)

    def _store(self, watch: Watch, runtime: Runtime, output: Output, result: Result) -> Unstored | None:
        """Store what a run that has succeeded made; None when all of it is where it belongs."""
        places = runtime.places(watch.run) if watch.run.spec.get("outputs") else None
        if places is None or self._outcome(watch, runtime, result).state is not State.SUCCEEDED:
            return None
        self._telling.keep(watch, output, self._telling.rest(watch, output))
        count = _counted(len(watch.run.spec["outputs"]), "output")
        self._scribe.write(Entry("phase", watch.lease, message=f"storing {count}"))
        tell = self._telling.teller(watch, "storing")
        installation = self._questions.installation(watch)
        unstored = Storing(
            watch, places, installation, self._detaching, self._telling.still_wanted, tell
        ).store()
        if unstored is None:
            self._scribe.write(Entry("phase", watch.lease, message=f"stored {count}"))
        return unstored

    def _outcome(self, watch: Watch, runtime: Runtime, result: Result) -> Outcome:
        operator = watch.operator or watch.run.operator_cancel
        lost = runtime.facts(watch.run).lost if result.lost else ""
        return outcomes.interpret(watch.run, runtime.noun, result, operator=operator, lost=lost)

    def _finish(
        self, watch: Watch, runtime: Runtime, output: Output, result: Result, unstored: Unstored | None
    ) -> None:
        """Store the rest of the output and the end in one commit, then clean up."""
        shipment = self._telling.rest(watch, output)
        outcome = self._outcome(watch, runtime, result)
        if unstored is not None:
            outcome = replace(outcome, state=unstored.state, reason=unstored.reason, message=unstored.message)
        outcome = replace(outcome, message=noted(outcome.message, runtime.facts(watch.run)))
        self._telling.end(
            watch, runtime, with_facts(outcome, shipment, None if result.error else result.ran_s), shipment
        )

    def _end_lost(self, watch: Watch, runtime: Runtime) -> None:
        run = watch.run
        state = State.CANCELLED if run.cancel_requested else State.FAILED
        output = self._output(watch, runtime)
        shipment = self._telling.rest(watch, output)
        outcome = Outcome(run.lease, state, Reason.LOST, lost_message(runtime.noun, runtime.facts(run).lost))
        self._telling.end(watch, runtime, with_facts(outcome, shipment, None), shipment)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
