"""The outputs of a run that has succeeded: stored before its end is, by whoever holds its lease.

The command is over, its node's resources are still its own. A cancel, a lost lease or the worker's end stops
it between two pieces; what became visible stays, and what was only on its way is removed, or used by the next
worker.
Must not import services, families or Celery.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.conf import settings

from workers.node.attempt.watch import Detached, Watch
from workers.runtimes.base import Places
from workers.runtimes.staging import (
    Interrupted,
    OutputFailed,
    Overdue,
    Plan,
    discard_outputs,
    limited,
    store_outputs,
)
from workers.vocabulary.crashpoints import step
from workers.vocabulary.states import Reason, State

log = structlog.get_logger(__name__)

#: How often it looks whether news of the lease have come, in seconds.
_LOOK_S = 0.5
#: How long what is left of an upload may take to be removed, in seconds.
_DISCARD_S = 20.0


@dataclass(frozen=True)
class Unstored:
    """Why the outputs are not where they belong, and what that makes of the run."""

    state: State
    reason: Reason
    message: str


@dataclass
class Storing:
    """One attempt's outputs. ``wanted`` asks the database, right before an output becomes visible, whether
    anybody still wants it; ``tell`` says to the run's owner how far it is."""

    watch: Watch
    places: Places
    installation: str
    detaching: threading.Event
    wanted: Callable[[Watch], bool]
    tell: Callable[[str], None]

    def store(self) -> Unstored | None:
        """None when all are stored. Raises Detached when the next worker goes on with it."""
        run = self.watch.run
        plan = Plan.of(run.spec, run.secrets)
        name = f"{self.installation}-{run.lease.run_id}-{run.lease.attempt}"
        tick = limited(self._tick, "storing its outputs")
        try:
            store_outputs(plan, self.places, name, tick=tick, commit=self._commit, tell=self.tell)
        except Interrupted:
            unstored = self._interrupted()
        except (OutputFailed, Overdue) as failure:
            unstored = Unstored(State.FAILED, Reason.OUTPUT, failure.message)
        except OSError as error:
            unstored = Unstored(State.FAILED, Reason.OUTPUT, f"its outputs cannot be read: {error}")
        else:
            step("staging.after_outputs")
            return None
        self._discard(plan, name)
        return unstored

    def _tick(self) -> None:
        watch = self.watch
        while True:
            if watch.fenced.is_set() or self.detaching.is_set():
                raise Detached
            if watch.cancel.is_set() or watch.run.cancel_requested or watch.stop_why:
                raise Interrupted
            if watch.run.never_lost or self._news_s() < self._news_most_s():
                return
            # Cut off for so long that another node may begin the next attempt: nothing is sent any more.
            log.warning("staging.cut_off", no_news_s=round(self._news_s()))
            self.detaching.wait(_LOOK_S)

    def _commit(self) -> None:
        self._tick()
        if not self.wanted(self.watch):
            raise Interrupted
        self._tick()

    def _news_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.watch.as_of

    @staticmethod
    def _news_most_s() -> float:
        return float(settings.GANTRY_NODE_LOST_AFTER_S - settings.GANTRY_GUARD_MARGIN_S)

    def _interrupted(self) -> Unstored:
        watch = self.watch
        if watch.cancel.is_set() or watch.run.cancel_requested:
            operator = watch.operator or watch.run.operator_cancel
            who = "an operator" if operator else "request"
            return Unstored(
                State.CANCELLED,
                Reason.OPERATOR if operator else Reason.NONE,
                f"Cancelled by {who} while its outputs were being stored",
            )
        if watch.stop_why == "node_gone":
            return Unstored(
                State.FAILED, Reason.NODE_GONE, "Its node was removed while its outputs were being stored"
            )
        return Unstored(
            State.FAILED,
            Reason.OUTPUT,
            f"Its worker died {watch.run.crashes} times while its outputs were being stored",
        )

    def _discard(self, plan: Plan, name: str) -> None:
        until = time.monotonic() + _DISCARD_S

        def tick() -> None:
            if self.watch.fenced.is_set() or self.detaching.is_set():
                raise Detached
            if time.monotonic() > until:
                raise Interrupted

        with contextlib.suppress(Interrupted):
            discard_outputs(plan, self.places, name, tick)
