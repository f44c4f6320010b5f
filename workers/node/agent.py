"""The agent of one node: claims, hands over, renews leases, honours cancels, adopts, fences, cleans up.

It lives in the Celery worker's process beside the pool that executes. One object per process, reached by the
Celery tasks through ``current``. Must not import services, families or Celery.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from workers.messages import doorbell
from workers.messages.handover import Handover, Publisher
from workers.node import orphans, questions, registration
from workers.node.adoption import adopt
from workers.node.attempt.runner import Runner
from workers.node.attempt.watch import Watch
from workers.node.keeper import Keeper
from workers.node.leftovers import Leftovers
from workers.node.registration import Registration
from workers.node.scribe import Entry, Scribe
from workers.runtimes.base import Answering, Presence, Runtime
from workers.scheduling import claiming
from workers.scheduling.claiming import Look, Memory, Superseded
from workers.upkeep.duties import Rota
from workers.upkeep.reconciler import reconcile_once
from workers.vocabulary.crashpoints import step
from workers.vocabulary.errors import SecretUnreadable
from workers.vocabulary.leases import Lease, Outcome
from workers.vocabulary.states import Reason, State

log = structlog.get_logger(__name__)

#: Looks after one that found nothing wait at least this long, in seconds, up to the second figure.
_EMPTY_LOOK_S = (0.004, 0.02)
_TICK_S = 0.25
#: Between two searches for orphans, and from the start to the first one.
_SWEEP_S, _FIRST_SWEEP_S = 60.0, 2.0

_current: Agent | None = None


def current() -> Agent | None:
    """The agent of this process, if it is a worker."""
    return _current


class Agent:
    """Everything that one worker process does beside executing."""

    def __init__(
        self, held: Registration, runtimes: dict[str, Runtime], publisher: Publisher, slots: int
    ) -> None:
        self.registration = held
        self.detaching = threading.Event()
        #: Called once when another worker has taken this node's name.
        self.on_superseded: Callable[[], None] = lambda: None
        self._runtimes = runtimes
        self._lookups = {
            kind: lookup
            for runtime in runtimes.values()
            if isinstance(runtime, Answering)
            for kind, lookup in runtime.lookups().items()
        }
        self._slots = slots
        self._memory = Memory()
        self._wake = threading.Event()
        self._duties_rung = threading.Event()
        self._lock = threading.Lock()
        self._handed: dict[Lease, Watch] = {}
        self._active: dict[Lease, Watch] = {}
        #: Runs whose runner failed here: each time counts as if it had killed its worker.
        self._failed: set[int] = set()
        self._freed = False
        self._mode = "ready"
        self._sweep_soon = threading.Event()
        self._leftovers = Leftovers()
        self._keeper = Keeper(held, runtimes, self.watches, self._leftovers)
        self._scribe = Scribe(held.name, self._on_freed)
        self._runner = Runner(runtimes, self._scribe, self.detaching, self._leftovers)
        self._handover = Handover(publisher, self.execute, slots)

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Adopt what the worker before left, then begin to look for work. Raises DatabaseError."""
        global _current
        _current = self
        self._scribe.start()
        # The guard must know of this worker before anything is started: it may be about to kill.
        self._obey(self._keeper.beat(broker_ok=False))
        self._adopt(None, crashed=self.registration.crashed)
        if self.registration.anew:
            # Before anything is claimed: what a backup believes to wait may run here as an earlier attempt.
            self._sweep()
        for name, work in (
            ("agent", self._claim_forever),
            ("heartbeat", self._beat_forever),
            ("ticker", self._tick_forever),
            ("sweeper", self._sweep_forever),
            ("reconciler", self._reconcile_forever),
            ("duties", self._duties_forever),
            ("ring", self._listen),
            ("duties-ring", self._listen_for_duties),
        ):
            threading.Thread(target=self._guarded(work), name=name, daemon=True).start()
        log.info("agent.started", node=self.registration.name, incarnation=self.registration.incarnation)

    def detach(self, timeout_s: float = 5.0) -> None:
        """Stop in good order: leave what runs, give back what has not started, say goodbye."""
        self.detaching.set()
        self._wake.set()
        self._duties_rung.set()
        self._sweep_soon.set()
        deadline = time.monotonic() + timeout_s
        while self._active and time.monotonic() < deadline - 2.0:
            time.sleep(0.02)
        with self._lock:
            unstarted, self._handed = list(self._handed), {}
        for lease in unstarted:
            outcome = Outcome(lease, State.FAILED, Reason.DROPPED, "the worker stopped before it was started")
            self._scribe.write(Entry("release", lease, outcome))
        self._handover.stop()
        self._scribe.stop(max(0.5, deadline - time.monotonic() - 0.5))
        # In a thread of its own: a database that has fallen silent must not hold up the end.
        goodbye = threading.Thread(target=self._goodbye, name="goodbye", daemon=True)
        goodbye.start()
        goodbye.join(max(0.5, deadline - time.monotonic()))
        log.info("agent.detached", node=self.registration.name, left_running=len(self._active))

    def _goodbye(self) -> None:
        step("agent.before_goodbye")
        with contextlib.suppress(DatabaseError):
            registration.goodbye(self.registration)
        step("agent.after_goodbye")
        connection.close()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            while not self.detaching.is_set():
                try:
                    work()
                except Superseded as error:
                    self._superseded(str(error))
                except DatabaseError as error:
                    log.warning(
                        "agent.database_away",
                        thread=threading.current_thread().name,
                        error=str(error).strip(),
                    )
                except Exception:
                    log.exception("agent.thread_failed", thread=threading.current_thread().name)
                finally:
                    with contextlib.suppress(Exception):
                        connection.close()
                self.detaching.wait(1.0)

        return run

    def _superseded(self, why: str) -> None:
        log.error("agent.superseded", why=why, meaning="this worker stops and writes nothing more")
        with self._lock:
            watches = [*self._handed.values(), *self._active.values()]
            self._handed.clear()
        for watch in watches:
            watch.fenced.set()
        self.detaching.set()
        self.on_superseded()

    # --- executing -----------------------------------------------------------------------------------

    def execute(self, lease: Lease) -> None:
        """Entry of both pools. A lease that is not in this worker's hands (any more) is ignored."""
        self._handover.arrived(lease)
        with self._lock:
            watch = self._handed.pop(lease, None)
            if watch is not None:
                self._active[lease] = watch
        if watch is None:
            return
        try:
            self._runner.execute(watch)
        except SecretUnreadable as error:
            # What runs goes on; it is taken over again until an operator has put the key back.
            log.warning("run.secret_unreadable", run=lease.run_id, attempt=lease.attempt, why=error.message)
        except Exception:
            # A fault of ours: the lease runs out and the run is adopted again, at most a few times.
            self._failed.add(lease.run_id)
            log.exception("run.runner_failed", run=lease.run_id, attempt=lease.attempt)
        finally:
            with self._lock:
                self._active.pop(lease, None)
            if watch.fenced.is_set():
                self._sweep_soon.set()  # what is left of it here belongs to nobody
            connection.close()

    def canary_arrived(self, nonce: str) -> None:
        self._handover.canary_arrived(nonce)

    def watches(self) -> list[Watch]:
        """Everything in this worker's hands."""
        with self._lock:
            return [*self._handed.values(), *self._active.values()]

    # --- looking for work ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now: a ring, a cancel, capacity that became free."""
        self._wake.set()

    def _on_freed(self) -> None:
        self._freed = True
        self._wake.set()

    def _claim_forever(self) -> None:
        pause = _EMPTY_LOOK_S[0]
        while not self.detaching.is_set():
            self._wake.wait(settings.GANTRY_LOOK_S)
            self._wake.clear()
            freed, self._freed = self._freed, False
            found = self._look()
            while found.more and not self.detaching.is_set():
                found = self._look()
            connection.close()
            if found.claimed or freed:
                pause = _EMPTY_LOOK_S[0]
            else:
                # Rings under a full node must not become a busy loop.
                self.detaching.wait(pause)
                pause = min(pause * 2, _EMPTY_LOOK_S[1])

    def _look(self) -> Look:
        step("agent.before_claim")
        room = self._slots - len(self._active) - len(self._handed)
        as_of = self._keeper.as_of
        found = claiming.look(
            self.registration.node_id,
            self.registration.incarnation,
            self._memory,
            min(settings.GANTRY_CLAIM_BATCH, room) if self._mode == "ready" else 0,
            self.registration.beats,
        )
        if found.claimed:
            step("agent.after_claim")
        self._hand([Watch(run, as_of) for run in found.claimed])
        self._honour_cancels(found.cancels)
        if found.questions:
            questions.answer(found.questions, self._presence_of, self._lookups)
        self._obey(found.mode)
        return found

    def _hand(self, watches: list[Watch]) -> None:
        with self._lock:
            for watch in watches:
                self._handed[watch.lease] = watch
        for watch in watches:
            self._handover.hand(watch.lease)

    def _honour_cancels(self, cancels: list[tuple[Lease, bool]]) -> None:
        for lease, operator in cancels:
            with self._lock:
                watch = self._active.get(lease) or self._handed.get(lease)
            if watch is None or watch.cancel.is_set():
                continue
            watch.operator = operator
            watch.cancel.set()
            log.info(
                "run.cancel_heard", by="agent", run=lease.run_id, attempt=lease.attempt, operator=operator
            )
            if watch.started:
                step("agent.before_stop")
                try:
                    self._runtimes[watch.run.kind].stop(watch.run, "cancel", watch.run.grace_s)
                except Exception:  # its own thread tries, too; others that are to be stopped do not wait
                    log.exception("run.not_stopped", run=lease.run_id, attempt=lease.attempt)
                step("agent.after_stop")

    def _obey(self, mode: str) -> None:
        """The operator's will, told by a look or a heartbeat: a node that was removed stops what it runs."""
        self._mode = mode
        running = [watch for watch in self.watches() if not watch.stop_why] if mode == "removed" else []
        for watch in running:
            watch.stop_why = "node_gone"
        if running:
            log.warning("agent.stops_everything", why="node_gone", runs=len(running))

    def _presence_of(self, run_id: int) -> tuple[bool, str]:
        """What this node sees of a run now (for reconcile)."""
        watch = next((item for item in self.watches() if item.lease.run_id == run_id), None)
        if watch is None:
            self._adopt([run_id], crashed=False)
            return True, "nobody watched it: taken over again"
        presence = self._runtimes[watch.run.kind].presence(watch.run)
        if presence is Presence.UNKNOWN:
            return False, f"node {self.registration.name} cannot tell: its engine does not answer"
        return True, f"node {self.registration.name} says: {presence.value}"

    def _adopt(self, run_ids: list[int] | None, *, crashed: bool) -> None:
        as_of = self._keeper.as_of
        runs = adopt(self.registration.node_id, self._runtimes, run_ids, crashed=crashed)
        watches = [Watch(run, as_of, stop_why="crashes" if suspect else "") for run, suspect in runs]
        if self._mode == "removed":
            for watch in watches:
                watch.stop_why = "node_gone"
        self._hand(watches)

    # --- the rest ------------------------------------------------------------------------------------

    def _beat_forever(self) -> None:
        while not self.detaching.is_set():
            self._obey(self._keeper.beat(broker_ok=self._handover.broker_ok))
            self._take_over(self._keeper.forgotten())
            connection.close()
            self.detaching.wait(settings.GANTRY_HEARTBEAT_S)

    def _take_over(self, forgotten: list[int]) -> None:
        """Adopt runs that nobody watches: this worker lives, so none of them is a suspect for that alone.

        The confirmation of its claim was lost, or its lease ran out in a moment when nobody held it.
        """
        failed = [run_id for run_id in forgotten if run_id in self._failed]
        self._failed.difference_update(failed)
        for run_ids, crashed in (([item for item in forgotten if item not in failed], False), (failed, True)):
            if run_ids:
                self._adopt(run_ids, crashed=crashed)

    def _tick_forever(self) -> None:
        while not self.detaching.is_set():
            self._handover.tick()
            if claiming.promote():
                step("agent.after_promote")
                self.wake()
            connection.close()
            self.detaching.wait(_TICK_S)

    def _sweep_forever(self) -> None:
        """In a thread of its own: what a command has left may take minutes to remove."""
        self._sweep_soon.wait(_FIRST_SWEEP_S)
        while not self.detaching.is_set():
            self._sweep_soon.clear()
            registration.confirm(self.registration)  # an older database does not know what is ours
            self._sweep()
            connection.close()
            self._sweep_soon.wait(_SWEEP_S)

    def _sweep(self) -> None:
        orphans.sweep_all(self._runtimes.values(), self.registration.node_id, self._leftovers)

    def _reconcile_forever(self) -> None:
        while not self.detaching.is_set():
            reconcile_once()
            connection.close()
            self.detaching.wait(settings.GANTRY_RECONCILE_S)

    def _duties_forever(self) -> None:
        rota, rung = Rota(), False
        while not self.detaching.is_set():
            rest_s = rota.turn(rung)
            connection.close()
            rung = self._duties_rung.wait(rest_s)
            self._duties_rung.clear()

    def _listen_for_duties(self) -> None:
        doorbell.listen(self._duties_rung.set, self.detaching, lambda _: None, doorbell.DUTIES)

    def _listen(self) -> None:
        doorbell.listen(self.wake, self.detaching, lambda _: None)
