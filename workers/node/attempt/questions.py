"""What an attempt asks the database, however long that is away.

Keeps no connection: there are fewer of them than runs. Must not import runtimes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection

from workers import secrets
from workers.logs import store
from workers.node import registration
from workers.node.attempt.watch import Detached, Watch
from workers.vocabulary.transfers.book import book

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Questions:
    """Each raises Detached when the worker stops, or the lease is lost, before there is an answer."""

    def __init__(self, detaching: threading.Event) -> None:
        self._detaching = detaching

    def secrets(self, watch: Watch) -> tuple[str, ...]:
        """The spec's secrets, in its order. Raises SecretUnreadable."""
        wanted = watch.run.spec.get("secret_ids")
        return tuple(self._asked(watch, lambda: secrets.reveal_all(wanted))) if wanted else ()

    def orders(self, watch: Watch) -> dict[str, Any] | None:
        """What a run that carries a batch has to do now; None = nothing."""
        run = watch.run
        return self._asked(watch, lambda: book(run.family).orders(run.lease, run.spec))

    def reported(self, watch: Watch) -> int:
        """Up to which byte the attempt's report is in its family's books; 0 where it makes none."""
        run = watch.run
        if "batch" not in run.spec:
            return 0
        return self._asked(watch, lambda: book(run.family).reported_until(run.lease))

    def shipped(self, watch: Watch) -> dict[int, int]:
        """Where the output of an adopted run goes on."""
        return self._asked(watch, lambda: store.shipped(watch.lease.run_id, watch.lease.attempt))

    def installation(self, watch: Watch) -> str:
        """The name of this database."""
        return self._asked(watch, registration.installation)

    def _asked(self, watch: Watch, question: Callable[[], T]) -> T:
        while True:
            try:
                return question()
            except (OperationalError, InterfaceError) as error:
                log.warning("run.database_away", error=str(error).strip())
            finally:
                with contextlib.suppress(Exception):
                    connection.close()
            if watch.fenced.is_set() or self._detaching.wait(1.0):
                raise Detached
