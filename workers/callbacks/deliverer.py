"""The process that delivers callbacks: leases receivers, hands them to a pool, keeps slow ones apart.

Three lanes with threads of their own: receivers that accepted the last time, those of which nothing is
known, and those that have timed out. A delivery that takes longer than a moment does not count against the
first two, so that the others there go on at once. The hand-over is the worker's: this process' own Celery
queue while the broker answers, else a local pool. Must not import services, families or Celery.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connection

from workers.callbacks import rows
from workers.callbacks.rows import Lane, Receiver
from workers.callbacks.turns import Stopping, Turns
from workers.messages import doorbell
from workers.messages.handover import Handover, Publisher
from workers.vocabulary import pulse
from workers.vocabulary.crashpoints import step
from workers.vocabulary.errors import SecretUnreadable
from workers.vocabulary.leases import Lease

log = structlog.get_logger(__name__)

#: A delivery that takes longer than this does not hold up the known and the new any more, in seconds.
_LATE_S = 0.1
#: So many of those in each lane at most; beyond it they hold it up.
_LATE_MOST = 64
#: Between two looks, so that several ends share one, in seconds.
_PAUSE_S = 0.01
#: Deliveries that are under way when the process is told to stop get so long, in seconds.
_STOP_GRACE_S = 2.0
_BEAT_S = 5.0

_current: Deliverer | None = None


def current() -> Deliverer | None:
    """The deliverer of this process, if it is one."""
    return _current


@dataclass
class Flight:
    """A leased receiver in this process' hands."""

    receiver: Receiver
    since: float = field(default_factory=time.monotonic)
    started: bool = False


def threads_most() -> int:
    """How many deliveries one process has under way at most."""
    return int(2 * (settings.GANTRY_CALLBACK_THREADS + _LATE_MOST) + settings.GANTRY_CALLBACK_SLOW_THREADS)


class Deliverer:
    """Everything that one callbacks process does."""

    def __init__(self, name: str, publisher: Publisher) -> None:
        self.name = name
        self.detaching = threading.Event()
        self._hurry = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._flights: dict[Lease, Flight] = {}
        self._places: dict[Lane, tuple[int, str]] = dict.fromkeys(rows.LANES, rows.START)
        self._turns = Turns(self.detaching, self._hurry)
        self._handover = Handover(publisher, self.deliver, threads_most())

    # --- life ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say that it is there and begin. Raises DatabaseError."""
        global _current
        _current = self
        rows.heartbeat(self.name, {})
        connection.close()
        for name, work in (
            ("callbacks", self._claim_forever),
            ("heartbeat", self._beat_forever),
            ("ticker", self._tick_forever),
            ("ring", self._listen),
        ):
            threading.Thread(target=self._guarded(work), name=name, daemon=True).start()
        log.info("callbacks.started", name=self.name)

    def detach(self, timeout_s: float = 5.0) -> None:
        """Stop in good order: finish what is nearly done, give back the rest, say goodbye."""
        self.detaching.set()
        self._wake.set()
        deadline = time.monotonic() + timeout_s
        self._handover.stop()
        with self._lock:
            unstarted = [lease for lease, flight in self._flights.items() if not flight.started]
            for lease in unstarted:
                del self._flights[lease]
        while self._flights and time.monotonic() < deadline - timeout_s + _STOP_GRACE_S:
            time.sleep(0.02)
        self._hurry.set()
        while self._flights and time.monotonic() < deadline - 1.0:
            time.sleep(0.02)
        goodbye = threading.Thread(target=self._goodbye, args=(unstarted,), name="goodbye", daemon=True)
        goodbye.start()
        goodbye.join(max(0.5, deadline - time.monotonic()))
        log.info("callbacks.detached", name=self.name, left=len(self._flights))

    def _goodbye(self, leases: list[Lease]) -> None:
        with contextlib.suppress(DatabaseError):
            for lease in leases:
                rows.release(lease)
            rows.heartbeat(self.name, self._turns.take_counts(), detached=True)
        connection.close()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            while not self.detaching.is_set():
                try:
                    work()
                except DatabaseError as error:
                    log.warning("callbacks.database_away", error=str(error).strip())
                except Exception:
                    log.exception("callbacks.thread_failed", thread=threading.current_thread().name)
                finally:
                    with contextlib.suppress(Exception):
                        connection.close()
                self.detaching.wait(1.0)

        return run

    # --- looking for work ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now: a ring, or a thread that became free."""
        self._wake.set()

    def _claim_forever(self) -> None:
        while not self.detaching.is_set():
            self._wake.wait(self._look_again_in())
            self._wake.clear()
            while self._look() and not self.detaching.is_set():
                continue
            connection.close()
            self.detaching.wait(_PAUSE_S)

    def _look_again_in(self) -> float:
        """A delivery that becomes late makes room without a word."""
        full = min(self._room("known"), self._room("new")) <= 0
        return _LATE_S if full else float(settings.GANTRY_LOOK_S)

    def _room(self, lane: Lane) -> int:
        now = time.monotonic()
        with self._lock:
            flights = [flight for flight in self._flights.values() if flight.receiver.lane == lane]
        if lane == "slow":
            return int(settings.GANTRY_CALLBACK_SLOW_THREADS - len(flights))
        late = sum(now - flight.since > _LATE_S for flight in flights)
        return int(settings.GANTRY_CALLBACK_THREADS - len(flights) + min(late, _LATE_MOST))

    def _look(self) -> bool:
        """Lease what there is room for; True when there may be more."""
        more = False
        for lane in rows.LANES:
            room = self._room(lane)
            if room <= 0:
                continue
            step("callbacks.before_claim")
            found = rows.claim(self.name, lane=lane, limit=room, after=self._places[lane])
            if not found:
                continue
            step("callbacks.after_claim")
            self._places[lane] = (found[-1].tenant_id, found[-1].address)
            more = more or len(found) == room
            with self._lock:
                for receiver in found:
                    self._flights[receiver.lease] = Flight(receiver)
            for receiver in found:
                self._handover.hand(receiver.lease)
        return more

    # --- delivering ----------------------------------------------------------------------------------

    def deliver(self, lease: Lease) -> None:
        """Entry of both pools. A lease that is not in this process' hands (any more) is ignored."""
        self._handover.arrived(lease)
        with self._lock:
            flight = self._flights.get(lease)
            if flight is None or flight.started:
                return
            flight.started = True
        flight.since = time.monotonic()
        try:
            self._turns.serve(flight.receiver)
        except (Stopping, DatabaseError, SecretUnreadable, ImproperlyConfigured) as error:
            if not isinstance(error, Stopping):
                log.warning(
                    "callbacks.not_delivered", receiver=flight.receiver.address, error=str(error).strip()
                )
            self._let_go(flight.receiver, error)
        except Exception as error:
            # A fault of ours: the lease is given back, and the callback is tried again.
            log.exception("callbacks.delivery_failed", receiver=flight.receiver.address)
            self._let_go(flight.receiver, error)
        finally:
            with self._lock:
                self._flights.pop(lease, None)
            with contextlib.suppress(Exception):
                connection.close()
            self._wake.set()

    @staticmethod
    def _let_go(receiver: Receiver, why: BaseException) -> None:
        if not isinstance(why, Stopping):
            time.sleep(1.0)  # what failed for no fault of the receiver's is not tried at once again
        with contextlib.suppress(Exception):
            connection.close()
            rows.release(receiver.lease)

    # --- the rest ------------------------------------------------------------------------------------

    def _beat_forever(self) -> None:
        while not self.detaching.is_set():
            counts = self._turns.take_counts()
            try:
                rows.heartbeat(self.name, counts)
            except DatabaseError:
                self._turns.put_back(counts)
                raise
            if settings.GANTRY_CALLBACKS_PULSE:
                pulse.write(Path(settings.GANTRY_CALLBACKS_PULSE))
            if rows.repair():
                self.wake()
            connection.close()
            self.detaching.wait(min(_BEAT_S, settings.GANTRY_HEARTBEAT_S))

    def _tick_forever(self) -> None:
        while not self.detaching.is_set():
            self._handover.tick()
            self.detaching.wait(0.25)

    def canary_arrived(self, nonce: str) -> None:
        self._handover.canary_arrived(nonce)

    def _listen(self) -> None:
        doorbell.listen(self.wake, self.detaching, lambda _: None, doorbell.CALLBACKS)
