"""From a claim to a thread that executes it: this node's own Celery queue, or the local pool.

The message carries only the lease. What is claimed stays in this process's memory, so a message that comes
twice, late, or after a restart finds nothing and does nothing. When the broker is silent, or a message has
not arrived in time, the local pool takes the run: a dead broker costs latency and nothing else.
Must not import the runner or the database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import structlog
from django.conf import settings

from workers.vocabulary.crashpoints import step
from workers.vocabulary.leases import Lease

log = structlog.get_logger(__name__)

_CANARY_EVERY_S = 10.0
_CANARY_LATE_S = 5.0


class Publisher(Protocol):
    """Sends one message to this node's queue; raises when the broker does not take it at once."""

    def execute(self, lease: Lease) -> None: ...

    def canary(self, nonce: str) -> None: ...

    def reset(self) -> None: ...


class Handover:
    """Hands leases to Celery while the broker proves to work, else to a local pool of the same size."""

    def __init__(self, publisher: Publisher, execute: Callable[[Lease], None], slots: int) -> None:
        self._publisher = publisher
        self._execute = execute
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="local")
        self._lock = threading.Lock()
        self._waiting: dict[Lease, float] = {}
        self._broker_ok = False
        self._canary_sent = 0.0
        self._canary_nonce = ""

    @property
    def broker_ok(self) -> bool:
        """Has a message made the round trip lately, and nothing failed since?"""
        return self._broker_ok

    def hand(self, lease: Lease) -> None:
        """Give a lease to whoever executes it; returns at once."""
        if not self._broker_ok:
            self._locally(lease)
            return
        with self._lock:
            self._waiting[lease] = time.monotonic()
        try:
            step("agent.before_publish")
            self._publisher.execute(lease)
            step("agent.after_publish")
        except Exception as error:  # noqa: BLE001  whatever the broker's client raises: the run must go on
            self._distrust(f"the broker did not take a message: {error}")
            with self._lock:
                mine = self._waiting.pop(lease, None) is not None
            if mine:
                self._locally(lease)

    def arrived(self, lease: Lease) -> None:
        """The message of a lease has come, or its run is done with."""
        with self._lock:
            self._waiting.pop(lease, None)

    def canary_arrived(self, nonce: str) -> None:
        """The canary made the round trip: the worker really consumes."""
        if nonce == self._canary_nonce:
            if not self._broker_ok:
                log.info("broker.back")
            self._broker_ok = True
            self._canary_nonce = ""

    def tick(self) -> None:
        """Several times a second: send the canary, notice late messages. Never raises."""
        now = time.monotonic()
        with self._lock:
            late = [
                lease for lease, since in self._waiting.items() if now - since > settings.GANTRY_HANDOVER_S
            ]
            for lease in late:
                del self._waiting[lease]
        if late:
            self._distrust(f"{len(late)} messages did not arrive within {settings.GANTRY_HANDOVER_S:g} s")
            for lease in late:
                self._locally(lease)
        if self._canary_nonce and now - self._canary_sent > _CANARY_LATE_S:
            self._distrust(f"the canary did not come back within {_CANARY_LATE_S:g} s")
            self._canary_nonce = ""
        if not self._canary_nonce and now - self._canary_sent > (_CANARY_EVERY_S if self._broker_ok else 1.0):
            self._canary_sent, self._canary_nonce = now, f"{now:.6f}"
            try:
                self._publisher.canary(self._canary_nonce)
            except Exception as error:  # noqa: BLE001  as above
                self._distrust(f"the broker did not take the canary: {error}")
                self._canary_nonce = ""

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _locally(self, lease: Lease) -> None:
        try:
            self._pool.submit(self._execute, lease)
        except RuntimeError:
            log.info("handover.stopped", run=lease.run_id)

    def _distrust(self, why: str) -> None:
        if self._broker_ok:
            log.warning("broker.silent", why=why, meaning="runs go through the local pool until it answers")
        self._broker_ok = False
        try:
            self._publisher.reset()
        except Exception as error:  # noqa: BLE001  closing what is broken anyway
            log.debug("broker.reset", error=str(error))


class CeleryPublisher:
    """Publishes to the queue ``node.<name>`` with the run as the task's id, so that Flower shows it."""

    def __init__(self, app: Any, node_name: str, queue: str = "") -> None:
        self._app = app
        self._queue = queue or f"node.{node_name}"
        self._producer: Any = None
        self._lock = threading.Lock()

    def execute(self, lease: Lease) -> None:
        self._send(
            "gantry.execute",
            [lease.run_id, lease.attempt, lease.epoch],
            f"{lease.run_id}-{lease.attempt}-{lease.epoch}",
        )

    def canary(self, nonce: str) -> None:
        self._send("gantry.canary", [nonce], f"canary-{nonce}")

    def reset(self) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.release()

    def _send(self, name: str, args: list[Any], task_id: str) -> None:
        with self._lock:
            if self._producer is None:
                options = {
                    **self._app.conf.broker_transport_options,
                    "socket_timeout": settings.REDIS_TIMEOUT_S,
                    "socket_connect_timeout": settings.REDIS_TIMEOUT_S,
                }
                connection = self._app.connection_for_write(transport_options=options)
                self._producer = self._app.amqp.Producer(connection)
            self._app.send_task(
                name, args=args, task_id=task_id, queue=self._queue, producer=self._producer, retry=False
            )


class CallbackPublisher(CeleryPublisher):
    """Publishes to a deliverer's own queue ``callbacks.<name>``; the lease is one of a receiver."""

    def __init__(self, app: Any, name: str) -> None:
        super().__init__(app, name, queue=f"callbacks.{name}")

    def execute(self, lease: Lease) -> None:
        self._send("gantry.deliver", [lease.run_id, lease.epoch], f"callbacks-{lease.run_id}-{lease.epoch}")

    def canary(self, nonce: str) -> None:
        self._send("gantry.callbacks_canary", [nonce], f"canary-{nonce}")
